"""When each unfinished order is due, and who has taken it: the SQL of resuming, one for both engines.

Each function works on one connection inside a transaction that its caller owns, and may be run again.
`resume_after` (seconds since 1970, by the database's clock) says when somebody may take an order up; claiming
it is moving that time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, Float, Text, bindparam, case, or_, select, update

from checkout.orders import Emission, Order, OrderStatus, Progress
from checkout.store import load
from checkout.tables import orders
from servicekit.db import Instant, epoch_now


@dataclass(frozen=True)
class End:
    """The end of a pass: in how many seconds the order is due again, and where its event is.

    It counts only while nobody has asked for another retry since the pass began: `retries` are those by then.
    """

    order_id: str
    delay_s: float
    emission: Emission | None = None
    retries: int = 0


# Built once: it takes as long as to run it.
_END_PASS = (
    update(orders)
    .where(
        orders.c.order_id == bindparam("key"),
        orders.c.status == OrderStatus.IN_PROGRESS.value,
        orders.c.retries == bindparam("asked"),
    )
    .values(
        resume_after=epoch_now() + bindparam("delay_s", type_=Float),
        leased=False,
        # Without a pause, because what it needs came back meanwhile, the pauses begin anew.
        passes=case((bindparam("delay_s", type_=Float) == 0, 0), else_=orders.c.passes + 1),
        event_stamp=bindparam("stamp", type_=Text),
        event_sequence=bindparam("sequence", type_=BigInteger),
        emitted_at=bindparam("at", type_=Instant),
    )
)


# As a subquery the clock is read once, and PostgreSQL can use the index.
_NOW = select(epoch_now()).scalar_subquery()


def claim(connection: Connection, limits: Mapping[str, int], lease_s: float) -> list[tuple[Order, Progress]]:
    """Take unfinished orders that are due, the longest overdue first, for the lease's time.

    `limits` says how many at most, by style.
    """
    taken: list[str] = []
    for style, limit in limits.items():
        due = (
            select(orders.c.order_id)
            .where(
                orders.c.status == OrderStatus.IN_PROGRESS.value,
                orders.c.style == style,
                orders.c.resume_after <= _NOW,
            )
            .order_by(orders.c.resume_after)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        taken += connection.scalars(due).all()
    return _take(connection, taken, lease_s)


def claim_next(connection: Connection, lease_s: float, style: str) -> list[tuple[Order, Progress]]:
    """Take the style's order that falls due next, before its time: to try whether what it needs is back.

    Not one whose event has been emitted: it may need nothing.
    """
    waiting = (
        select(orders.c.order_id)
        .where(
            orders.c.status == OrderStatus.IN_PROGRESS.value,
            orders.c.style == style,
            orders.c.event_stamp.is_(None),
            ~orders.c.leased,
        )
        .order_by(orders.c.resume_after)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return _take(connection, connection.scalars(waiting).all(), lease_s)


def end_passes(connection: Connection, ends: Sequence[End]) -> list[None]:
    """Let go of these orders: those that are unfinished are due again after their delay."""
    rows = [
        {
            "key": end.order_id,
            "asked": end.retries,
            "delay_s": end.delay_s,
            "stamp": end.emission and end.emission.stamp,
            "sequence": end.emission and end.emission.sequence,
            "at": end.emission and end.emission.at,
        }
        # In one sequence everywhere: transactions that take the same rows never wait in a ring.
        for end in sorted(ends, key=lambda end: end.order_id)
    ]
    connection.execute(_END_PASS, rows)
    return [None] * len(ends)


def make_due(
    connection: Connection, limit: int, *, style: str | None, but_stamp: str, leased_too: bool
) -> int:
    """Make unfinished orders (of one style) due at once, at most `limit` of those that wait; how many.

    Their pauses begin anew, also of those that are due already: else an order that is tried often, and in
    vain, would wait the longest. Not those whose event was emitted under `but_stamp`.
    """
    waiting = select(orders.c.order_id).where(
        orders.c.status == OrderStatus.IN_PROGRESS.value,
        or_(orders.c.resume_after > _NOW, orders.c.passes > 0),
        or_(orders.c.event_stamp.is_(None), orders.c.event_stamp != but_stamp),
    )
    if style is not None:
        waiting = waiting.where(orders.c.style == style)
    if not leased_too:
        waiting = waiting.where(~orders.c.leased)
    # Locked ones are waited for: passed over, they would sit out their pause.
    ids = connection.scalars(waiting.order_by(orders.c.order_id).limit(limit).with_for_update()).all()
    if ids:
        due = update(orders).where(orders.c.order_id.in_(ids))
        connection.execute(due.values(resume_after=epoch_now(), passes=0))
    return len(ids)


def make_due_again(connection: Connection, progress: Progress) -> None:
    """Make one order due as if no pass had been over it, with the emission and the retries of `progress`."""
    emission = progress.emission
    connection.execute(
        update(orders)
        .where(orders.c.order_id == progress.order_id)
        .values(
            resume_after=epoch_now(),
            leased=False,
            passes=0,
            event_stamp=emission and emission.stamp,
            event_sequence=emission and emission.sequence,
            emitted_at=emission and emission.at,
            retries=progress.retries,
        )
    )


def _take(connection: Connection, order_ids: Sequence[str], lease_s: float) -> list[tuple[Order, Progress]]:
    if not order_ids:
        return []
    leased = update(orders).where(orders.c.order_id.in_(order_ids))
    connection.execute(leased.values(resume_after=epoch_now() + lease_s, leased=True))
    return load(connection, order_ids)
