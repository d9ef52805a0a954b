"""Shows on a live system that the warehouse takes shipments at /v2/shipments, and no more at /shipments.

Ten fresh orders are placed in the style asked for; what the warehouse has counted at each path since says how
their shipments came about. Then the old path is tried, and one order's command is repeated at the new one,
which must answer with the shipment that is there already.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.client import Answer, Call, NoAnswerError, Patience, bearer, open_client, send
from lab.commands import command_for
from lab.errors import LabError
from lab.ledger import COMPLETED
from lab.placing import Plan, place_orders
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

WAREHOUSE = "warehouse"
OLD, NEW = "/shipments", "/v2/shipments"
ORDERS = 10
FOLLOW_S = 60.0
PATIENCE = Patience(20.0)


class Silent:
    """Is told of progress, and tells nobody."""

    def accepted(self, order: Mapping[str, Any]) -> None:
        """Nothing."""

    def changed(self, order: Mapping[str, Any]) -> None:
        """Nothing."""

    def not_accepted(self, error: LabError) -> None:
        """Nothing: the outcome has it."""


async def prove(system: System, style: str) -> tuple[bool, str]:
    """Whether the endpoint has moved, and what was seen."""
    async with open_client() as client:
        before = await shipments_told(client, system)
        async with SyncedLines(system.accepted_file) as accepted:
            plan = Plan(
                system.url(CONDUCTOR),
                lambda number: json.dumps(mixed_order(number)).encode(),
                count=ORDERS,
                styles=(style,),
                follow_s=FOLLOW_S,
            )
            outcome = await place_orders(client, plan, accepted, Silent())
        after = await shipments_told(client, system)
        told = {path: after[path] - before[path] for path in (OLD, NEW)}
        completed = [order for order in outcome.orders.values() if order["status"] == COMPLETED]
        old = await post(client, system, OLD, {})
        repeated = await repeats(client, system, completed[0]) if completed else False
    expected = ORDERS if style == "orchestration" else 0
    proved = (
        len(completed) == ORDERS
        and old.status in (404, 405)
        and told[OLD] == 0
        # Other orders may be placed meanwhile.
        and (told[NEW] >= expected if expected else told[NEW] == 0)
        and repeated
    )
    how = "answers a repeated command with its shipment" if repeated else "does not know the command"
    return proved, (
        f"{len(completed)} of {ORDERS} fresh {style} orders were completed; meanwhile {told[NEW]} shipments "
        f"were asked for at {NEW} and {told[OLD]} at {OLD}; "
        f"now {NEW} {how}, and {OLD} answers {old.status}."
    )


async def shipments_told(client: httpx.AsyncClient, system: System) -> dict[str, int]:
    """By path, how often the warehouse has been asked for a shipment since it was started, and complied."""
    reply = await client.get(f"{system.url(WAREHOUSE)}/metrics", timeout=PATIENCE.try_s)
    told = {OLD: 0, NEW: 0}
    for family in text_string_to_metric_families(reply.text):
        for sample in family.samples:
            labels = sample.labels
            complied = labels.get("method") == "POST" and labels.get("status") in ("200", "201")
            if sample.name == "http_requests_total" and complied and labels["route"] in told:
                told[labels["route"]] += int(sample.value)
    return told


async def repeats(client: httpx.AsyncClient, system: System, order: Mapping[str, Any]) -> bool:
    """Whether an order's command at the new path brings the shipment that the order has."""
    command = command_for(WAREHOUSE, order)
    if command.path != NEW:
        return False
    answer = await post(client, system, NEW, command.body)
    shipment_id = order["steps"][WAREHOUSE]["result"]["shipment_id"]
    return answer.status == 200 and answer.body.get("shipment_id") == shipment_id


async def post(client: httpx.AsyncClient, system: System, path: str, body: Mapping[str, Any]) -> Answer:
    """One request as the conductor; an empty body asks for nothing."""
    headers = bearer(system.tokens().conductor(WAREHOUSE))
    url = f"{system.url(WAREHOUSE)}{path}"
    return await send(client, Call("POST", url, headers, content=json.dumps(body).encode()), PATIENCE)


def main() -> int:
    """Print one line of JSON; 0 if it is proved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    options = parser.parse_args()
    try:
        system = System.locate(options.port_base, options.data)
        proved, what = asyncio.run(prove(system, options.style))
    except (LabError, NoAnswerError, httpx.HTTPError) as error:
        proved, what = False, f"The system gave no answer: {error}"
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
