"""Shows that a confirmation waits for its shipment, names it, and says how it stands.

Places a few orders in one style, one of which the warehouse has to backorder, and compares each order's
confirmation with its shipment as the two services show them. Refuses to take an order that is not completed,
a confirmation that names no shipment or another one, or one that was recorded before its shipment.
"""

from datetime import datetime

from lab.change.proving import Asked, Shown, fetch, place, prove
from lab.ledger import COMPLETED
from lab.samples import mixed_order
from lab.system import CONDUCTOR

ORDERS = 10
NEVER_IN_STOCK = "BACKORDER-ME"


async def check(asked: Asked) -> Shown:
    """Whether it is so, and what was seen."""
    bodies = [mixed_order(number) for number in range(ORDERS)]
    bodies[0]["lines"][0]["sku"] = NEVER_IN_STOCK
    placed = await place(asked, bodies)
    if not placed.all_accepted:
        return Shown(False, f"only {placed.accepted} of {ORDERS} orders were accepted.")
    faults = {order_id: await fault(asked, order_id) for order_id in placed.orders}
    wrong = {order_id: why for order_id, why in faults.items() if why}
    if wrong:
        order_id, why = next(iter(wrong.items()))
        return Shown(
            False, f"{len(wrong)} of {ORDERS} confirmations are not as wanted; order {order_id}: {why}."
        )
    return Shown(
        True,
        f"each of {ORDERS} confirmations, one of a backordered shipment among them, names the shipment that "
        "the warehouse shows, with its state, and none is older than its shipment.",
    )


async def fault(asked: Asked, order_id: str) -> str | None:
    """What is wrong with one order's confirmation; None if nothing is."""
    order = await fetch(asked, CONDUCTOR, f"/checkouts/{order_id}")
    if order["status"] != COMPLETED:
        return f"it is {order['status']}"
    shipment = await fetch(asked, "warehouse", f"/shipments/{order_id}")
    confirmation = await fetch(asked, "email", f"/emails/{order_id}")
    named = confirmation.get("shipment")
    if not named:
        return "its confirmation names no shipment"
    try:
        if (named["shipment_id"], named["state"]) != (shipment["shipment_id"], shipment["state"]):
            return f"its confirmation names {named}, not {shipment['shipment_id']}, {shipment['state']}"
        prepared, recorded = shipment["prepared_at"], confirmation["recorded_at"]
        if datetime.fromisoformat(recorded) < datetime.fromisoformat(prepared):
            return f"it was confirmed at {recorded}, before its shipment was prepared at {prepared}"
    except (KeyError, TypeError, ValueError) as error:
        return f"what is shown of it cannot be read: {error!r}"
    return None


if __name__ == "__main__":
    prove(check)
