"""Proves that rewards looks members up, then credits: fresh orders are credited once, the old shape refused.

The command in the old shape is sent for an order that has its entry already, so that it changes nothing where
it is still taken. How often members were looked up over REST is read from the rewards service's own metrics.
"""

import argparse
import asyncio
import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.client import Call, Patience, bearer, open_client, send
from lab.errors import FAILED, LabError
from lab.look import OK, look
from lab.placing import Plan, place_orders
from lab.reading import read_effects
from lab.samples import sample_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

ORDERS = 10
CUSTOMERS = 5  # half of the orders are of somebody who is being made a member at the same time
WAIT_S = 60.0
LOOK_S = 10.0
LOOKUP = "/members/lookup"
REFUSAL = "/problems/rewards/validation-error"


class NotProvedError(Exception):
    """What was seen is not what the change promises."""


class Silent:
    """Who listens to the placing of orders, and says nothing."""

    def accepted(self, order: Any) -> None:
        """An order was accepted."""

    def changed(self, order: Any) -> None:
        """An order has gone on."""

    def not_accepted(self, error: LabError) -> None:
        """An order was not accepted."""


async def prove(system: System, style: str) -> str:
    """What was seen, in a sentence. Raises NotProvedError, or LabError where something cannot be read."""
    run = uuid.uuid4().hex[:12]

    def body(number: int) -> bytes:
        order = sample_order(rewards_member=True)
        order["customer"]["email"] = f"split-{run}-{number % CUSTOMERS}@example.com"
        return json.dumps(order).encode()

    before = await lookups(system)
    async with open_client() as client, SyncedLines(system.accepted_file) as accepted:
        plan = Plan(system.url(CONDUCTOR), body, ORDERS, styles=[style], follow_s=WAIT_S)
        outcome = await place_orders(client, plan, accepted, Silent())
        if outcome.finished["completed"] != ORDERS:
            raise NotProvedError(f"of {ORDERS} orders {outcome.finished['completed']} were completed")
        orders = list(outcome.orders.values())
        effects = Counter(e.order_id for e in await read_effects(client, system, "rewards", Patience(WAIT_S)))
        wrong = [order["order_id"] for order in orders if effects[order["order_id"]] != 1]
        if wrong:
            raise NotProvedError(f"{len(wrong)} of {ORDERS} orders were not credited exactly once: {wrong}")
        members = {order["steps"]["rewards"]["result"]["balance_id"] for order in orders}
        if len(members) != CUSTOMERS:
            raise NotProvedError(f"{CUSTOMERS} customers have {len(members)} balances")
        looked_up = await lookups(system) - before
        if style == "orchestration" and looked_up < ORDERS:
            raise NotProvedError(f"for {ORDERS} orders the conductor looked up {looked_up} members")
        status, kind = await old_shape(client, system, orders[0])
        if status != 422 or not kind.endswith(REFUSAL):
            raise NotProvedError(f"rewards still takes the old shape: it answered {status}")
    return (
        f"{ORDERS} fresh orders of {CUSTOMERS} new members were credited exactly once, after {looked_up} "
        f"lookups over REST, and POST /balances with the customer in place of member_id is answered {status}"
    )


async def lookups(system: System) -> int:
    """How many lookups rewards has answered well over REST, by its metrics. Raises LabError."""
    seen = await look(f"{system.url('rewards')}/metrics", LOOK_S)
    if seen is None or seen.status != OK:
        raise LabError("the rewards service does not show its metrics", FAILED)
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(seen.body.decode())
            for sample in family.samples
            if sample.name == "http_requests_total"
            and (sample.labels["route"], sample.labels["status"]) == (LOOKUP, "200")
        )
    )


async def old_shape(client: httpx.AsyncClient, system: System, order: dict[str, Any]) -> tuple[int, str]:
    """Status and problem type of the answer to a command in the old shape."""
    command = {
        "order_id": order["order_id"],
        "customer": {"name": order["customer"]["name"], "email": order["customer"]["email"]},
        "currency": order["currency"],
        "total_minor": order["total_minor"],
    }
    headers = bearer(system.tokens().conductor("rewards"))
    call = Call("POST", f"{system.url('rewards')}/balances", headers, content=json.dumps(command).encode())
    answer = await send(client, call, Patience(LOOK_S))
    return answer.status, str(answer.body.get("type", ""))


def main() -> int:
    """Prove it, print what was seen, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    told = parser.parse_args()
    try:
        what, proved = asyncio.run(prove(System.locate(told.port_base, told.data), told.style)), True
    except (NotProvedError, LabError) as error:
        what, proved = str(error), False
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    raise SystemExit(main())
