"""Shows on the running system that a fourth service invoices every order of one style.

Called as `python proof.py --port-base N --data DIR --style STYLE`, with the changed tree in PYTHONPATH and
DUET_ROOT. It refuses to take the service's word alone: checkout's answer must show the step, too.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from lab.client import Call, Patience, bearer, open_client, pages
from lab.errors import LabError
from lab.placing import Plan, place_orders
from lab.reading import EFFECTS_A_PAGE, POLL_S, get_checkout
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

SERVICE = "invoice"
ORDERS = 10
PATIENCE = Patience(15.0, try_s=5.0)
FINAL_WITHIN_S = 30.0


class NotProvedError(Exception):
    """What was seen instead, as a sentence."""


class Silent:
    """Nobody watches the orders being placed."""

    def accepted(self, order: Mapping[str, Any]) -> None:
        """Say nothing."""

    def changed(self, order: Mapping[str, Any]) -> None:
        """Say nothing."""

    def not_accepted(self, error: LabError) -> None:
        """Say nothing: the outcome counts it."""


async def prove(system: System, style: str) -> str:
    """What was seen, as a sentence; raise NotProvedError or LabError where it is not as it should be."""
    async with open_client() as client:
        await read_numbers(client, system)  # before any order is placed: is there such a service at all?
        plan = Plan(
            url=system.url(CONDUCTOR),
            body=lambda number: json.dumps(mixed_order(number)).encode(),
            count=ORDERS,
            styles=(style,),
            follow_s=FINAL_WITHIN_S,
        )
        async with SyncedLines(system.accepted_file) as accepted:
            outcome = await place_orders(client, plan, accepted, Silent())
        if not outcome.all_accepted or outcome.unfinished:
            raise NotProvedError(
                f"Of {ORDERS} orders {outcome.accepted} were accepted, and {len(outcome.unfinished)} did not "
                f"come to an end within {FINAL_WITHIN_S:.0f} s."
            )
        told = {order_id: await number_told(client, system, order_id) for order_id in outcome.orders}
        numbers = await read_numbers(client, system)
    for order_id, number in told.items():
        if numbers.get(order_id) != number:
            raise NotProvedError(
                f"Of order {order_id} checkout tells invoice {number}, the service {numbers.get(order_id)}."
            )
    return (
        f"Each of {len(told)} new orders by {style} has exactly one invoice and shows the step {SERVICE} as "
        f"succeeded, and the numbers of all {len(numbers)} invoices are 1 to {len(numbers)} without gaps."
    )


async def read_numbers(client: httpx.AsyncClient, system: System) -> dict[str, int]:
    """By order id, the number of its invoice; raise NotProvedError unless they are 1, 2, 3 and so on."""
    headers = bearer(system.tokens().operator)
    call = Call("GET", f"{system.url(SERVICE)}/effects", headers, {"limit": EFFECTS_A_PAGE})
    effects = [told async for page in pages(client, call, "effects", PATIENCE) for told in page]
    numbers = {str(told["order_id"]): told["number"] for told in effects}
    if len(numbers) < len(effects):
        raise NotProvedError(f"{len(effects)} invoices belong to {len(numbers)} orders.")
    if sorted(numbers.values()) != list(range(1, len(effects) + 1)):
        raise NotProvedError(f"The numbers of {len(effects)} invoices are not 1 to {len(effects)}.")
    return numbers


async def number_told(client: httpx.AsyncClient, system: System, order_id: str) -> int:
    """The invoice's number by checkout's own answer; raise NotProvedError if it does not come.

    A participant that checkout did not know yet when it accepted the order is awaited here, not there.
    """
    status = "not there"
    for _ in range(int(FINAL_WITHIN_S / POLL_S)):
        order = await get_checkout(client, system, order_id, PATIENCE)
        step = order["steps"].get(SERVICE) if order else None
        status = step["status"] if step else "not there"
        if step and status == "succeeded":
            return int(step["result"]["number"])
        if status in ("failed", "skipped") or (order and order["style"] == "orchestration"):
            break  # all of its steps were final already, and there will be no other
        await asyncio.sleep(POLL_S)
    raise NotProvedError(f"The step {SERVICE} of order {order_id} is {status}.")


def main() -> None:
    """Print one line of JSON; exit with 0 if it is proved."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    options = parser.parse_args()
    try:
        system = System.locate(options.port_base, options.data)
        proved, what = True, asyncio.run(prove(system, options.style))
    except (NotProvedError, LabError) as error:
        proved, what = False, str(error)
    print(json.dumps({"proved": proved, "what": what}))
    sys.exit(0 if proved else 1)


if __name__ == "__main__":
    main()
