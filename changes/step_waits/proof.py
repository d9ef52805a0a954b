"""Shows that a confirmation waits for its shipment, names it, and says how it stands.

Places a few orders in one style, one of which the warehouse has to backorder, and compares each order's
confirmation with its shipment as the two services show them. Refuses to take an order that is not completed,
a confirmation that names no shipment or another one, or one that was recorded before its shipment.
"""

import argparse
import asyncio
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from lab.client import Call, Patience, bearer, ensure_running, expect, open_client, send
from lab.errors import LabError
from lab.ledger import COMPLETED
from lab.outcome import Outcome
from lab.placing import Plan, place_orders
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

ORDERS = 10
NEVER_IN_STOCK = "BACKORDER-ME"
FOLLOW_S = 60.0
PATIENCE_S = 20.0


class Silent:
    """Listens to the placing of orders, and says nothing."""

    def accepted(self, order: Any) -> None:
        """An order was accepted."""

    def changed(self, order: Any) -> None:
        """One of its steps, or the order, has finished."""

    def not_accepted(self, error: LabError) -> None:
        """An order was refused, or not answered."""


def body(number: int) -> bytes:
    """One order's request; the first wants what is never in stock."""
    order = mixed_order(number)
    if number == 0:
        order["lines"][0]["sku"] = NEVER_IN_STOCK
    return json.dumps(order).encode()


async def place(client: httpx.AsyncClient, system: System, style: str) -> Outcome:
    """Place the orders, and wait until they are final."""
    plan = Plan(
        system.url(CONDUCTOR),
        body,
        count=ORDERS,
        styles=(style,),
        follow_s=FOLLOW_S,
        patience=Patience(PATIENCE_S),
    )
    async with SyncedLines(system.accepted_file) as lines:
        return await place_orders(client, plan, lines, Silent())


async def read(client: httpx.AsyncClient, system: System, service: str, path: str) -> dict[str, Any]:
    """What a service shows the operator."""
    call = Call("GET", f"{system.url(service)}{path}", bearer(system.tokens().operator))
    return expect(await send(client, call, Patience(PATIENCE_S)))


async def fault(client: httpx.AsyncClient, system: System, order_id: str) -> str | None:
    """What is wrong with one order's confirmation; None if nothing is."""
    order = await read(client, system, CONDUCTOR, f"/checkouts/{order_id}")
    if order["status"] != COMPLETED:
        return f"it is {order['status']}"
    shipment = await read(client, system, "warehouse", f"/shipments/{order_id}")
    confirmation = await read(client, system, "email", f"/emails/{order_id}")
    named = confirmation.get("shipment")
    if not named:
        return "its confirmation names no shipment"
    if (named["shipment_id"], named["state"]) != (shipment["shipment_id"], shipment["state"]):
        return f"its confirmation names {named}, not {shipment['shipment_id']}, {shipment['state']}"
    prepared, recorded = shipment["prepared_at"], confirmation["recorded_at"]
    if datetime.fromisoformat(recorded) < datetime.fromisoformat(prepared):
        return f"it was confirmed at {recorded}, before its shipment was prepared at {prepared}"
    return None


async def prove(system: System, style: str) -> tuple[bool, str]:
    """Whether it is so, and what was seen."""
    async with open_client() as client:
        await ensure_running(client, system)
        placed = await place(client, system, style)
        if not placed.all_accepted:
            return False, f"only {placed.accepted} of {ORDERS} orders were accepted"
        faults = {order_id: await fault(client, system, order_id) for order_id in placed.orders}
    wrong = {order_id: why for order_id, why in faults.items() if why}
    if wrong:
        order_id, why = next(iter(wrong.items()))
        return False, f"{len(wrong)} of {ORDERS} confirmations are not as wanted; order {order_id}: {why}"
    return True, (
        f"each of {ORDERS} confirmations, one of a backordered shipment among them, names the shipment that "
        "the warehouse shows, with its state, and none is older than its shipment"
    )


def main() -> int:
    """Print one line of JSON; 0 if it was proved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    told = parser.parse_args()
    try:
        proved, what = asyncio.run(prove(System.locate(told.port_base, told.data), told.style))
    except (LabError, KeyError, TypeError, ValueError) as error:
        proved, what = False, f"it could not be shown: {error!r}"
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
