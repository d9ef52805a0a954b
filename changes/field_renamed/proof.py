"""Shows that the total is called `amount_minor` now: in the event, or in the command that rewards takes.

Fresh orders must complete with the points that they earn. Choreographed, their events are read from the
stream; orchestrated, rewards is asked both ways about an order that it has credited already, which changes
nothing.
"""

from collections.abc import Sequence
from typing import Any

from lab.change.proving import Asked, NotProvedError, Shown, place, place_and_read, prove, tell
from lab.samples import mixed_order

NEW, OLD = "amount_minor", "total_minor"
ORDERS = 10
WITHOUT_MINOR_UNITS = ("JPY",)  # of the currencies of the samples


async def check(asked: Asked) -> Shown:
    """Whether the new name is in use, and what was seen."""
    orders = [mixed_order(number) for number in range(ORDERS)]
    return await (_of_the_event if asked.style == "choreography" else _of_the_command)(asked, orders)


async def _of_the_event(asked: Asked, bodies: Sequence[dict[str, Any]]) -> Shown:
    outcome, events = await place_and_read(asked, bodies)
    orders = list(outcome.orders.values())
    told = {data.get("order_id"): data for data in (event.get("data", {}) for _, event in events)}
    new = 0
    for order in orders:
        event = told.get(order["order_id"], {})
        new += event.get(NEW) == order[OLD] and OLD not in event
    right = _rightly_completed(orders)
    return Shown(
        new == right == ORDERS,
        f"of {ORDERS} fresh orders {new} have an event with the right {NEW} and no {OLD}, "
        f"and {right} completed with the points that they earn.",
    )


async def _of_the_command(asked: Asked, bodies: Sequence[dict[str, Any]]) -> Shown:
    orders = list((await place(asked, bodies)).orders.values())
    credited = next((order for order in orders if order["customer"]["rewards_member"]), None)
    if credited is None:
        raise NotProvedError(f"of {ORDERS} fresh orders no member's was accepted.")
    command = {key: credited[key] for key in ("order_id", "customer", "currency")}
    old = await tell(asked, "rewards", "/balances", {**command, OLD: credited[OLD]})
    new = await tell(asked, "rewards", "/balances", {**command, NEW: credited[OLD]})
    same = new.body.get("points") == credited["steps"]["rewards"].get("result", {}).get("points")
    right = _rightly_completed(orders)
    return Shown(
        (old.status, new.status, same, right) == (422, 200, True, ORDERS),
        f"rewards answers {new.status} to {NEW} and {old.status} to {OLD}, "
        f"and of {ORDERS} fresh orders {right} completed with the points that they earn.",
    )


def _rightly_completed(orders: Sequence[dict[str, Any]]) -> int:
    """How many completed with whole major units as points, or, if not a member's, without any."""
    right = 0
    for order in orders:
        rewards = order["steps"].get("rewards", {})
        minor_units = 1 if order["currency"] in WITHOUT_MINOR_UNITS else 100
        if order["customer"]["rewards_member"]:
            earned = rewards.get("result", {}).get("points") == order[OLD] // minor_units
        else:
            earned = rewards.get("status") == "skipped"
        right += order["status"] == "completed" and earned
    return right


if __name__ == "__main__":
    prove(check)
