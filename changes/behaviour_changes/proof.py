"""Proves that rewards doubles points on Fridays, on whatever day it is run.

The rule is a pure function of the changed tree, asked for a Thursday, a Friday and a Saturday. The running
service has to have started after that file was changed, and of fresh orders each entry has to say what the
rule says for the time of the entry. On any day but a Friday, that last part alone would prove nothing.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.change.proving import Asked, NotProvedError, Shown, fetch_all, place, prove, samples
from lab.errors import LabError
from lab.samples import mixed_order
from rewards_svc import points

ORDERS = 5
STARTED_WITHIN_S = 2.0  # what Linux tells of a process's start is as exact as its whole seconds of boot time
BEFORE_MIDNIGHT = datetime(2026, 11, 26, 23, 59, 59, 999_999, tzinfo=UTC)  # a Thursday
FRIDAY = datetime(2026, 11, 27, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 28, tzinfo=UTC)


async def check(asked: Asked) -> Shown:
    """What was seen. Raises NotProvedError, or LabError where something cannot be read."""
    days = (BEFORE_MIDNIGHT, FRIDAY, SATURDAY)
    try:
        told = [points.points_for(4348, "GBP", at) for at in days]
    except TypeError:
        raise NotProvedError("the rule does not know the day: points_for takes none.") from None
    if told != [43, 86, 43]:
        raise NotProvedError(f"by the rule 43.48 GBP earn {told} points on Thursday, Friday and Saturday.")
    if await started_at(asked) < changed_at() - STARTED_WITHIN_S:
        raise NotProvedError("the rewards service still runs with what it did before the change.")
    outcome = await place(asked, [mixed_order(number, rewards_member=True) for number in range(ORDERS)])
    if outcome.finished["completed"] != ORDERS:
        raise NotProvedError(f"of {ORDERS} orders {outcome.finished['completed']} were completed.")
    doubled = 0
    for order in outcome.orders.values():
        entry = await entry_of(asked, order)
        at = datetime.fromisoformat(entry["at"])
        right = points.points_for(order["total_minor"], order["currency"], at)
        if not entry["points"] == order["steps"]["rewards"]["result"]["points"] == right:
            raise NotProvedError(f"{order['order_id']} earned {entry['points']} points, not {right}.")
        doubled += at.isoweekday() == 5
    return Shown(
        True,
        f"by the changed rule 43.48 GBP earn {told[0]} points on a Thursday, {told[1]} on a Friday and "
        f"{told[2]} on a Saturday, rewards has started since that was changed, and the entries of {ORDERS} "
        f"fresh orders say what the rule says for the time of each ({doubled} of them on a Friday).",
    )


def changed_at() -> float:
    """When the file with the rule was written last."""
    return Path(points.__file__).stat().st_mtime


async def started_at(asked: Asked) -> float:
    """When the running rewards service started, by its metrics. Raises LabError."""
    for sample in await samples(asked, "rewards", "process_start_time_seconds"):
        return float(sample.value)
    raise LabError("the rewards service does not say when it started, as it does on Linux")


async def entry_of(asked: Asked, order: dict[str, Any]) -> dict[str, Any]:
    """The one entry of an order on its balance. Raises NotProvedError if there is none, or more."""
    balance_id = order["steps"]["rewards"]["result"]["balance_id"]
    entries = await fetch_all(asked, "rewards", f"/balances/{balance_id}/entries", "entries")
    found = [entry for entry in entries if entry["order_id"] == order["order_id"]]
    if len(found) != 1:
        raise NotProvedError(f"order {order['order_id']} has {len(found)} entries.")
    return found[0]


if __name__ == "__main__":
    prove(check)
