"""Gives the new service the orders from before it existed, and says how: called as proof.py is.

Choreographed orders it has already, by its durable consumer, which delivers all that the stream still holds;
orchestrated ones are posted to it from checkout's books, as `duet repair` does. Exits with 0 if it has all.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from lab.client import Patience, open_client
from lab.errors import LabError
from lab.ledger import Order
from lab.reading import POLL_S, read_effects, read_orders
from lab.repair import Repair, resend
from lab.synced import SyncedLines, repaired_file
from lab.system import System

SERVICE = "invoice"
PATIENCE = Patience(15.0, try_s=5.0)
CATCHES_UP_WITHIN_S = 60.0
HEARD = (
    "Nobody has to do anything: the service's durable consumer delivers what the stream holds, which is the "
    "orders of the last seven days, and each shows a step that nobody awaits."
)
TOLD = (
    "Somebody has to: each older order in checkout's books is posted to POST /invoices with the conductor's "
    "token, as duet repair does, and checkout's answer for it shows no such step."
)


async def backfill(system: System, style: str) -> dict[str, Any]:
    """How it is done, for how many older orders, and how many of them have an invoice now."""
    async with open_client() as client:
        known = (await read_orders(client, system, PATIENCE)).values()
        orders = [order for order in known if order.style == style]
        older, given = await (heard if style == "choreography" else tell)(client, system, orders)
    how = HEARD if style == "choreography" else TOLD
    return {"possible": True, "how": how, "orders": len(older), "given": len(given)}


async def heard(
    client: httpx.AsyncClient, system: System, orders: Sequence[Order]
) -> tuple[set[str], set[str]]:
    """The orders accepted before the service's first effect, and those of them that it has caught up with."""
    older: set[str] = set()
    given: set[str] = set()
    for _ in range(int(CATCHES_UP_WITHIN_S / POLL_S)):
        effects = await read_effects(client, system, SERVICE, PATIENCE)
        if effects:
            first = min(effect.at for effect in effects)
            older = {order.order_id for order in orders if order.accepted_at < first}
            given = older & {effect.order_id for effect in effects}
            if given == older:
                break
        await asyncio.sleep(POLL_S)
    return older, given


async def tell(
    client: httpx.AsyncClient, system: System, orders: Sequence[Order]
) -> tuple[set[str], set[str]]:
    """The orders that checkout accepted without this step, and those of them that have an invoice now."""
    older = {order.order_id for order in orders if SERVICE not in order.steps}
    there = {effect.order_id for effect in await read_effects(client, system, SERVICE, PATIENCE)}
    missing = sorted(older - there)  # ids grow with time, so the oldest order gets the lowest number
    done = Repair(SERVICE, len(older), len(older & there), missing)
    async with SyncedLines(repaired_file(system)) as notes:
        await resend(client, system, done, notes, PATIENCE)
    there = {effect.order_id for effect in await read_effects(client, system, SERVICE, PATIENCE)}
    return older, older & there


def main() -> None:
    """Print one line of JSON; exit with 0 if the service has every older order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    options = parser.parse_args()
    try:
        system = System.locate(options.port_base, options.data)
        told = asyncio.run(backfill(system, options.style))
    except LabError as error:
        told = {"possible": False, "how": str(error), "orders": 0, "given": 0}
    print(json.dumps(told))
    sys.exit(0 if told["possible"] and told["given"] == told["orders"] else 1)


if __name__ == "__main__":
    main()
