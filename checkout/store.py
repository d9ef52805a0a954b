"""The durable journal's SQL: one row for each order, with its progress. One SQL for both engines.

Each function works on one connection inside a transaction that its caller owns, and may be run again.
The row is the outbox too: `resume_after` (seconds since 1970, by the database's clock) says when somebody
may take an unfinished order up; claiming it is moving that time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

import orjson
from sqlalchemy import (
    Connection,
    Float,
    bindparam,
    func,
    select,
    tuple_,
    update,
)

from checkout.orders import Order, OrderStatus, Outcome, Progress, advance
from checkout.tables import PROGRESS, order_in, orders, progress_in, steps_json
from servicekit.crashpoints import reach
from servicekit.db import INSERTS, epoch_now


class StaleProgressError(Exception):
    """Somebody else has changed the order since its progress was read."""


@dataclass(frozen=True)
class Placement:
    """An order to accept, its first progress, and the key under which the client may repeat it."""

    order: Order
    progress: Progress
    lease_s: float
    key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True)
class Accepted:
    """That an order is in the journal, and with which fingerprint.

    `progress` is its first progress; None where an earlier request with the same key put it there.
    """

    order_id: str
    fingerprint: str | None
    progress: Progress | None = None


@dataclass(frozen=True)
class Change:
    """Outcomes to apply to an order, whose progress was `before` when it was last seen."""

    before: Progress
    outcomes: tuple[Outcome, ...]


# Built once: it takes as long as to run them.
_ACCEPT = {
    dialect: make(orders)
    .on_conflict_do_nothing()
    .values(resume_after=epoch_now() + bindparam("lease_s", type_=Float))
    .execution_options(preserve_rowcount=True)
    for dialect, make in INSERTS.items()
}
_CHANGE = (
    update(orders)
    .where(orders.c.order_id == bindparam("key"), orders.c.version == bindparam("seen"))
    .values(
        status=bindparam("status"),
        steps=bindparam("steps"),
        version=bindparam("version"),
        completed_at=bindparam("completed_at"),
    )
)
_END_PASS = (
    update(orders)
    .where(orders.c.order_id == bindparam("key"), orders.c.status == OrderStatus.IN_PROGRESS.value)
    .values(
        resume_after=epoch_now() + bindparam("delay_s", type_=Float),
        leased=False,
        passes=orders.c.passes + 1,
    )
)


def accept(connection: Connection, placements: Sequence[Placement]) -> list[Accepted]:
    """Write new orders. An order id that is there already counts as accepted: a commit's answer got lost."""
    rows = [_order_row(placement) for placement in placements]
    result = connection.execute(_ACCEPT[connection.dialect.name], rows)
    if result.rowcount == len(placements):
        accepted = [Accepted(p.order.order_id, p.fingerprint, p.progress) for p in placements]
    else:
        accepted = _accepted_before(connection, placements)
    reach("checkout.before-accept-commit")
    return accepted


def change(connection: Connection, changes: Sequence[Change]) -> list[Progress]:
    """Apply outcomes to orders that nobody else has changed meanwhile; the progress of each afterwards.

    Raises StaleProgressError if somebody has: then `change_anyway`, which reads first.
    """
    after = [reduce(advance, each.outcomes, each.before) for each in changes]
    _write(connection, [(each.before, new) for each, new in zip(changes, after, strict=True)])
    return after


def change_anyway(connection: Connection, changes: Sequence[Change]) -> list[Progress]:
    """Apply outcomes to orders as they now stand. Raises KeyError for one that is not in the journal."""
    before = progress_of(connection, {each.before.order_id for each in changes}, lock=True)
    after = dict(before)
    for each in changes:
        order_id = each.before.order_id
        after[order_id] = reduce(advance, each.outcomes, after[order_id])
    _write(connection, [(before[order_id], new) for order_id, new in after.items()])
    return [after[each.before.order_id] for each in changes]


def replace_progress(connection: Connection, before: Progress, after: Progress) -> None:
    """Put one progress in another's place. Raises StaleProgressError if `before` is not what is there."""
    _write(connection, [(before, after)])


def progress_of(
    connection: Connection, order_ids: Iterable[str], *, lock: bool = False
) -> dict[str, Progress]:
    """The progress of these orders, by id. `lock` keeps other transactions from changing them."""
    query = select(*PROGRESS).where(orders.c.order_id.in_(sorted(order_ids))).order_by(orders.c.order_id)
    rows = connection.execute(query.with_for_update() if lock else query)
    return {row.order_id: progress_in(row) for row in rows}


def versions_of(connection: Connection, order_ids: Iterable[str]) -> dict[str, int]:
    """The version of each of these orders, to see cheaply which have changed."""
    query = select(orders.c.order_id, orders.c.version).where(orders.c.order_id.in_(list(order_ids)))
    return {row.order_id: row.version for row in connection.execute(query)}


def load(connection: Connection, order_ids: Sequence[str]) -> list[tuple[Order, Progress]]:
    """Whole orders with their progress, in the given order; unknown ids are left out."""
    rows = connection.execute(select(orders).where(orders.c.order_id.in_(order_ids)))
    found = {row.order_id: (order_in(row), progress_in(row)) for row in rows}
    return [found[order_id] for order_id in order_ids if order_id in found]


def by_key(connection: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Accepted]:
    """The orders that these idempotency keys, each with its caller, stand for."""
    query = select(orders.c.order_id, orders.c.caller, orders.c.idempotency_key, orders.c.fingerprint).where(
        tuple_(orders.c.caller, orders.c.idempotency_key).in_(keys)
    )
    return {
        (row.caller, row.idempotency_key): Accepted(row.order_id, row.fingerprint)
        for row in connection.execute(query)
    }


def page(
    connection: Connection,
    *,
    status: OrderStatus | None,
    accepted_before: datetime | None,
    after: str,
    limit: int,
) -> list[tuple[Order, Progress]]:
    """Up to `limit` orders after an order id (ids grow with time), oldest first."""
    query = select(orders).where(orders.c.order_id > after)
    if status is not None:
        query = query.where(orders.c.status == status.value)
    if accepted_before is not None:
        query = query.where(orders.c.accepted_at <= accepted_before)
    rows = connection.execute(query.order_by(orders.c.order_id).limit(limit))
    return [(order_in(row), progress_in(row)) for row in rows]


def claim(connection: Connection, limit: int, lease_s: float) -> list[tuple[Order, Progress]]:
    """Take up to `limit` unfinished orders that are due, the longest overdue first, for the lease's time."""
    # As a subquery the clock is read once, and PostgreSQL can use the index.
    now = select(epoch_now()).scalar_subquery()
    due = (
        select(orders.c.order_id)
        .where(orders.c.status == OrderStatus.IN_PROGRESS.value, orders.c.resume_after <= now)
        .order_by(orders.c.resume_after)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _take(connection, connection.scalars(due).all(), lease_s)


def claim_next(connection: Connection, lease_s: float) -> list[tuple[Order, Progress]]:
    """Take the order that falls due next, before its time: to try whether a service is back."""
    waiting = (
        select(orders.c.order_id)
        .where(orders.c.status == OrderStatus.IN_PROGRESS.value, ~orders.c.leased)
        .order_by(orders.c.resume_after)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return _take(connection, connection.scalars(waiting).all(), lease_s)


def end_passes(connection: Connection, delays: Sequence[tuple[str, float]]) -> list[None]:
    """Say when each of these orders, if unfinished, is due again: (order id, seconds from now)."""
    connection.execute(_END_PASS, [{"key": order_id, "delay_s": delay_s} for order_id, delay_s in delays])
    return [None] * len(delays)


def make_due(connection: Connection, limit: int, *, leased_too: bool) -> int:
    """Make unfinished orders due at once, at most `limit` of those that wait; how many there were."""
    waiting = select(orders.c.order_id).where(
        orders.c.status == OrderStatus.IN_PROGRESS.value, orders.c.resume_after > epoch_now()
    )
    if not leased_too:
        waiting = waiting.where(~orders.c.leased)
    ids = connection.scalars(waiting.limit(limit).with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(update(orders).where(orders.c.order_id.in_(ids)).values(resume_after=epoch_now()))
    return len(ids)


def make_due_again(connection: Connection, order_id: str) -> None:
    """Make one order due as if no pass had been over it."""
    afresh = update(orders).where(orders.c.order_id == order_id)
    connection.execute(afresh.values(resume_after=epoch_now(), leased=False, passes=0))


def census(connection: Connection) -> tuple[dict[str, int], datetime | None]:
    """How many orders there are by status, and when the oldest unfinished one was accepted."""
    counted = connection.execute(select(orders.c.status, func.count()).group_by(orders.c.status))
    unfinished = orders.c.status == OrderStatus.IN_PROGRESS.value
    oldest = connection.scalar(
        select(orders.c.accepted_at).where(unfinished).order_by(orders.c.order_id).limit(1)
    )
    return {row[0]: row[1] for row in counted}, oldest


def _take(connection: Connection, order_ids: Sequence[str], lease_s: float) -> list[tuple[Order, Progress]]:
    if not order_ids:
        return []
    leased = update(orders).where(orders.c.order_id.in_(order_ids))
    connection.execute(leased.values(resume_after=epoch_now() + lease_s, leased=True))
    return load(connection, order_ids)


def _write(connection: Connection, replaced: Sequence[tuple[Progress, Progress]]) -> None:
    rows = [
        {
            "key": after.order_id,
            "seen": before.version,
            "status": after.status.value,
            "steps": steps_json(after),
            "version": after.version,
            "completed_at": after.completed_at,
        }
        for before, after in replaced
        if after.version != before.version
    ]
    if rows and connection.execute(_CHANGE, rows).rowcount != len(rows):
        raise StaleProgressError


def _accepted_before(connection: Connection, placements: Sequence[Placement]) -> list[Accepted]:
    ids = [placement.order.order_id for placement in placements]
    written = set(connection.scalars(select(orders.c.order_id).where(orders.c.order_id.in_(ids))))
    repeated = [placement for placement in placements if placement.order.order_id not in written]
    earlier = by_key(connection, [(p.order.caller, str(p.key)) for p in repeated])
    return [
        Accepted(p.order.order_id, p.fingerprint, p.progress)
        if p.order.order_id in written
        else earlier[p.order.caller, str(p.key)]
        for p in placements
    ]


def _order_row(placement: Placement) -> dict[str, Any]:
    order = placement.order
    details = {"customer": order.customer, "lines": order.lines, "ship_to": order.ship_to}
    return {
        "order_id": order.order_id,
        "style": order.style,
        "caller": order.caller,
        "idempotency_key": placement.key,
        "fingerprint": placement.fingerprint,
        "currency": order.currency,
        "total_minor": order.total_minor,
        "details": orjson.dumps(details).decode(),
        "accepted_at": order.accepted_at,
        "status": placement.progress.status.value,
        "steps": steps_json(placement.progress),
        "version": placement.progress.version,
        "completed_at": placement.progress.completed_at,
        "leased": True,
        "passes": 0,
        "lease_s": placement.lease_s,
    }
