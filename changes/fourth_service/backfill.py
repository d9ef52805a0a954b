"""Gives the new service the orders from before it existed, and says how: called as proof.py is.

Choreographed orders it has already, by its durable consumer, which delivers all that the stream still holds;
orchestrated ones are posted to it from checkout's books, as `duet repair` does. It refuses to call that done
while one of them has no invoice.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.change.proving import Asked, Shown, prove
from lab.client import Patience
from lab.ledger import Order
from lab.reading import POLL_S, read_effects, read_orders
from lab.repair import Repair, resend
from lab.synced import SyncedLines, repaired_file

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


@dataclass(frozen=True)
class Given(Shown):
    """Whether every order from before has an invoice in the end; of how many, and how many have one."""

    orders: int = 0
    given: int = 0

    def as_document(self) -> dict[str, Any]:
        """What is printed."""
        return {"proved": self.proved, "how": self.what, "orders": self.orders, "given": self.given}


async def backfill(asked: Asked) -> Given:
    """How it is done, for how many older orders, and how many of them have an invoice now."""
    known = (await read_orders(asked.client, asked.system, PATIENCE)).values()
    orders = [order for order in known if order.style == asked.style]
    is_heard = asked.style == "choreography"
    older, given = await (heard if is_heard else tell)(asked, orders)
    return Given(given == older, HEARD if is_heard else TOLD, len(older), len(given))


async def heard(asked: Asked, orders: Sequence[Order]) -> tuple[set[str], set[str]]:
    """The orders accepted before the service's first effect, and those of them that it has caught up with."""
    older = {order.order_id for order in orders}
    given: set[str] = set()
    for _ in range(int(CATCHES_UP_WITHIN_S / POLL_S)):
        effects = await read_effects(asked.client, asked.system, SERVICE, PATIENCE)
        if effects:
            first = min(effect.at for effect in effects)
            older = {order.order_id for order in orders if order.accepted_at < first}
            given = older & {effect.order_id for effect in effects}
        if given == older:
            break
        await asyncio.sleep(POLL_S)
    return older, given


async def tell(asked: Asked, orders: Sequence[Order]) -> tuple[set[str], set[str]]:
    """The orders that checkout accepted without this step, and those of them that have an invoice now."""
    older = {order.order_id for order in orders if SERVICE not in order.steps}
    there = await invoiced(asked)
    missing = sorted(older - there)  # ids grow with time, so the oldest order gets the lowest number
    done = Repair(SERVICE, len(older), len(older & there), missing)
    async with SyncedLines(repaired_file(asked.system)) as notes:
        await resend(asked.client, asked.system, done, notes, PATIENCE)
    return older, older & await invoiced(asked)


async def invoiced(asked: Asked) -> set[str]:
    """The orders that have an invoice."""
    effects = await read_effects(asked.client, asked.system, SERVICE, PATIENCE)
    return {effect.order_id for effect in effects}


if __name__ == "__main__":
    prove(backfill, Given)
