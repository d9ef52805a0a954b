"""Shows on a live system that OrderCreated is emitted on shop.orders.created, and no more on orders.created.

Ten fresh orders are placed in the style asked for, then whatever the stream of orders has stored is read.
Orchestrated orders emit nothing: there is nothing to move, and the proof shows that.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from lab.broker import connect
from lab.client import open_client
from lab.errors import LabError
from lab.ledger import COMPLETED
from lab.placing import Plan, place_orders
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

if TYPE_CHECKING:
    from nats.js import JetStreamContext

STREAM = "ORDERS"
OLD, NEW = "orders.created", "shop.orders.created"
ORDERS = 10
FOLLOW_S = 60.0
READ_S = 60.0


class Silent:
    """Is told of progress, and tells nobody."""

    def accepted(self, order: Mapping[str, Any]) -> None:
        """Nothing."""

    def changed(self, order: Mapping[str, Any]) -> None:
        """Nothing."""

    def not_accepted(self, error: LabError) -> None:
        """Nothing: the outcome has it."""


async def prove(system: System, style: str) -> tuple[bool, str]:
    """Whether the channel has moved, and what was seen."""
    async with connect(system) as jetstream, open_client() as client:
        last = (await jetstream.stream_info(STREAM)).state.last_seq
        async with SyncedLines(system.accepted_file) as accepted:
            plan = Plan(
                system.url(CONDUCTOR),
                lambda number: json.dumps(mixed_order(number)).encode(),
                count=ORDERS,
                styles=(style,),
                follow_s=FOLLOW_S,
            )
            outcome = await place_orders(client, plan, accepted, Silent())
        async with asyncio.timeout(READ_S):
            emitted = await emitted_after(jetstream, last)
    completed = {order["order_id"] for order in outcome.orders.values() if order["status"] == COMPLETED}
    heard_of = {subject: completed & set(ids) for subject, ids in emitted.items()}
    if style == "orchestration":
        proved = len(completed) == ORDERS and not heard_of[OLD] and not heard_of[NEW]
        events = "None of them was told of by an event, so there was nothing to move"
    else:
        proved = len(completed) == ORDERS == len(heard_of[NEW]) and not emitted[OLD]
        events = (
            f"{len(heard_of[NEW])} of them were told of on {NEW}; "
            f"{OLD} has taken {len(emitted[OLD])} events meanwhile"
        )
    return proved, f"{len(completed)} of {ORDERS} fresh {style} orders were completed. {events}."


async def emitted_after(jetstream: "JetStreamContext", sequence: int) -> dict[str, list[str]]:
    """By subject, the orders of which the stream has stored events behind a sequence."""
    emitted: dict[str, list[str]] = {OLD: [], NEW: []}
    while True:
        try:
            message = await jetstream.get_msg(STREAM, seq=sequence + 1, subject=">", next=True)
        except NotFoundError:
            return emitted
        sequence = message.seq or sequence + 1
        emitted.setdefault(message.subject or "", []).append(json.loads(message.data or b"{}")["subject"])


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
    except (LabError, NatsError, TimeoutError) as error:
        proved, what = False, f"The system gave no answer: {error}"
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
