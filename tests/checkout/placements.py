"""Orders as the journal's tests place them, and outcomes of their steps."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from typing import Any

from uuid_utils import uuid7

from checkout.journal import Journal
from checkout.orders import Order, Outcome, Progress, Step, StepStatus, advance, first_progress
from checkout.store import Change, Placement
from tests.checkout.world import ORDER

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
NAMES = ("email", "warehouse", "rewards")


def order(**given: Any) -> Order:
    facts = {
        "order_id": str(uuid7()),
        "style": "orchestration",
        "caller": "anonymous",
        "total_minor": 4348,
        "accepted_at": NOW,
        **{name: ORDER[name] for name in ("customer", "currency", "lines", "ship_to")},
    }
    return Order(**{**facts, **given})


def placement(
    key: str | None = None,
    *,
    lease_s: float = 15,
    print_: str = "f",
    names: Sequence[str] = NAMES,
    **given: Any,
) -> Placement:
    placed = order(**given)
    progress = first_progress(placed, [Step(name) for name in names])
    return Placement(placed, progress, lease_s, key, print_ if key else None)


def success(order_id: str, name: str) -> Outcome:
    return Outcome(order_id, name, StepStatus.SUCCEEDED, NOW, 1, result={"is": name})


def failure(order_id: str, name: str) -> Outcome:
    return Outcome(order_id, name, StepStatus.FAILED, NOW, 1, reason="no")


def change(before: Progress, *outcomes: Outcome) -> Change:
    def rule(seen: Progress) -> Progress:
        return reduce(advance, outcomes, seen)

    return Change(before, rule(before), rule)


async def finish(journal: Journal, placed: Placement) -> Progress:
    outcomes = [success(placed.order.order_id, name) for name in NAMES]
    return await journal.record(placed.progress, outcomes)


def up_to(limit: int) -> dict[str, int]:
    """That many orders of each style."""
    return dict.fromkeys(("orchestration", "choreography"), limit)
