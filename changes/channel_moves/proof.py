"""Shows on a live system that OrderCreated is emitted on shop.orders.created, and no more on orders.created.

Ten fresh orders are placed in the style asked for, then whatever the stream of orders has stored is read.
Orchestrated orders emit nothing: there is nothing to move, and the proof shows that.
"""

from lab.change.proving import Asked, Shown, place_and_read, prove
from lab.ledger import COMPLETED
from lab.samples import mixed_order

OLD, NEW = "orders.created", "shop.orders.created"
ORDERS = 10


async def check(asked: Asked) -> Shown:
    """Whether the channel has moved, and what was seen."""
    outcome, events = await place_and_read(asked, [mixed_order(number) for number in range(ORDERS)])
    emitted = {
        channel: [event["subject"] for subject, event in events if subject == channel]
        for channel in (OLD, NEW)
    }
    completed = {order["order_id"] for order in outcome.orders.values() if order["status"] == COMPLETED}
    heard_of = {subject: completed & set(ids) for subject, ids in emitted.items()}
    if asked.style == "orchestration":
        proved = len(completed) == ORDERS and not heard_of[OLD] and not heard_of[NEW]
        told = "None of them was told of by an event, so there was nothing to move"
    else:
        proved = len(completed) == ORDERS == len(heard_of[NEW]) and not emitted[OLD]
        told = (
            f"{len(heard_of[NEW])} of them were told of on {NEW}; "
            f"{OLD} has taken {len(emitted[OLD])} events meanwhile"
        )
    return Shown(proved, f"{len(completed)} of {ORDERS} fresh {asked.style} orders were completed. {told}.")


if __name__ == "__main__":
    prove(check)
