"""The promise about a broker that was away: all orders complete within half a minute of its return."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

WITHIN_S = 30.0


def now() -> datetime:
    """By the clock that checkout's times are told by: it is the same machine's."""
    return datetime.now(UTC)


def check_completed_soon_after(
    away_at: datetime, back_at: datetime, orders: Sequence[Mapping[str, Any]]
) -> None:
    """Fail unless there are orders from before, during and after, and each is completed in time."""
    accepted = [datetime.fromisoformat(order["accepted_at"]) for order in orders]
    assert min(accepted) < away_at
    assert any(away_at < at < back_at for at in accepted)
    assert max(accepted) > back_at
    assert {order["status"] for order in orders} == {"completed"}
    for order, at in zip(orders, accepted, strict=True):
        completed_at = datetime.fromisoformat(order["completed_at"])
        assert (completed_at - max(at, back_at)).total_seconds() < WITHIN_S, order
