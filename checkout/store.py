"""The durable journal's SQL: orders, their steps, and who is due to be resumed. One SQL for both engines.

Each function works on one connection inside a transaction that its caller owns, and may be run again.
The order row is the outbox: `resume_after` (seconds since 1970, by the database's clock) says when
somebody may take an unfinished order up; claiming it is moving that time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    bindparam,
    func,
    select,
    tuple_,
    update,
)

from checkout.orders import Order, OrderStatus, Outcome, Progress, Step, StepStatus, advance
from servicekit.crashpoints import reach
from servicekit.db import Instant, epoch_now, insert_for

metadata = MetaData()

orders = Table(
    "orders",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("style", Text, nullable=False),
    Column("caller", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("details", Text, nullable=False),
    Column("accepted_at", Instant, nullable=False),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("completed_at", Instant),
    Column("resume_after", Float(53), nullable=False),
    Column("passes", Integer, nullable=False),
)

steps = Table(
    "steps",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", Text),
    Column("reason", Text),
    Column("last_error", Text),
    Column("since", Instant),
    Column("finished_at", Instant),
)


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


def accept(connection: Connection, placements: Sequence[Placement]) -> list[Accepted]:
    """Write new orders. An order id that is there already counts as accepted: a commit's answer got lost."""
    insert = insert_for(connection, orders).on_conflict_do_nothing()
    lease = epoch_now() + bindparam("lease_s", type_=Float)
    connection.execute(
        insert.values(resume_after=lease), [_order_row(p) | {"lease_s": p.lease_s} for p in placements]
    )
    written = _written(connection, [placement.order.order_id for placement in placements])
    first_steps = [
        _step_row(placement.order.order_id, step)
        for placement in placements
        if placement.order.order_id in written
        for step in placement.progress.steps.values()
    ]
    if first_steps:
        connection.execute(insert_for(connection, steps).on_conflict_do_nothing(), first_steps)
    repeated = [placement for placement in placements if placement.order.order_id not in written]
    earlier = _by_key(connection, repeated) if repeated else {}
    reach("checkout.before-accept-commit")
    return [
        Accepted(p.order.order_id, p.fingerprint, p.progress)
        if p.order.order_id in written
        else earlier[p.order.caller, p.key]
        for p in placements
    ]


def record(connection: Connection, outcomes: Sequence[Outcome]) -> list[Progress]:
    """Apply outcomes in their order; the progress of each one's order afterwards.

    Raises KeyError for an order that is not in the journal.
    """
    before = progress_of(connection, {outcome.order_id for outcome in outcomes}, lock=True)
    after = dict(before)
    for outcome in outcomes:
        after[outcome.order_id] = advance(after[outcome.order_id], outcome)
    write_progress(connection, before, after)
    return [after[outcome.order_id] for outcome in outcomes]


def write_progress(
    connection: Connection, before: Mapping[str, Progress], after: Mapping[str, Progress]
) -> None:
    """Write what differs between two states of the same (locked) orders."""
    changed = [progress for order_id, progress in after.items() if progress != before[order_id]]
    if not changed:
        return
    rows = [
        _step_row(progress.order_id, step)
        for progress in changed
        for name, step in progress.steps.items()
        if step != before[progress.order_id].steps.get(name)
    ]
    upsert = insert_for(connection, steps)
    columns = {c.name: upsert.excluded[c.name] for c in steps.columns if not c.primary_key}
    connection.execute(upsert.on_conflict_do_update(index_elements=["order_id", "name"], set_=columns), rows)
    connection.execute(
        update(orders)
        .where(orders.c.order_id == bindparam("key"))
        .values(
            status=bindparam("status"), version=bindparam("version"), completed_at=bindparam("completed_at")
        ),
        [
            {
                "key": progress.order_id,
                "status": progress.status.value,
                "version": progress.version,
                "completed_at": progress.completed_at,
            }
            for progress in changed
        ],
    )


def progress_of(
    connection: Connection, order_ids: Iterable[str], *, lock: bool = False
) -> dict[str, Progress]:
    """The progress of these orders, by id. `lock` keeps other transactions from changing them."""
    wanted = sorted(order_ids)
    columns = (
        orders.c.order_id,
        orders.c.status,
        orders.c.version,
        orders.c.completed_at,
        orders.c.passes,
    )
    query = select(*columns).where(orders.c.order_id.in_(wanted)).order_by(orders.c.order_id)
    heads = connection.execute(query.with_for_update() if lock else query).all()
    known: dict[str, dict[str, Step]] = {head.order_id: {} for head in heads}
    rows = connection.execute(select(steps).where(steps.c.order_id.in_(list(known))))
    for row in rows:
        known[row.order_id][row.name] = _step(row)
    return {
        head.order_id: Progress(
            head.order_id,
            OrderStatus(head.status),
            known[head.order_id],
            head.version,
            head.completed_at,
            head.passes,
        )
        for head in heads
    }


def versions_of(connection: Connection, order_ids: Iterable[str]) -> dict[str, int]:
    """The version of each of these orders, to see cheaply which have changed."""
    query = select(orders.c.order_id, orders.c.version).where(orders.c.order_id.in_(list(order_ids)))
    return {row.order_id: row.version for row in connection.execute(query)}


def load(connection: Connection, order_ids: Sequence[str]) -> list[tuple[Order, Progress]]:
    """Whole orders with their progress, in the given order; unknown ids are left out."""
    rows = connection.execute(select(orders).where(orders.c.order_id.in_(order_ids)))
    facts = {row.order_id: _order(row) for row in rows}
    progress = progress_of(connection, facts)
    return [(facts[order_id], progress[order_id]) for order_id in order_ids if order_id in progress]


def page(
    connection: Connection,
    *,
    status: OrderStatus | None,
    accepted_before: datetime | None,
    after: str,
    limit: int,
) -> list[tuple[Order, Progress]]:
    """Up to `limit` orders after an order id (ids grow with time), oldest first."""
    query = select(orders.c.order_id).where(orders.c.order_id > after)
    if status is not None:
        query = query.where(orders.c.status == status.value)
    if accepted_before is not None:
        query = query.where(orders.c.accepted_at <= accepted_before)
    return load(connection, connection.scalars(query.order_by(orders.c.order_id).limit(limit)).all())


def claim(connection: Connection, limit: int, lease_s: float) -> list[tuple[Order, Progress]]:
    """Take up to `limit` unfinished orders that are due, the longest overdue first, for the lease's time."""
    due = (
        select(orders.c.order_id)
        .where(orders.c.status == OrderStatus.IN_PROGRESS.value, orders.c.resume_after <= epoch_now())
        .order_by(orders.c.resume_after)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = connection.scalars(due).all()
    if not claimed:
        return []
    connection.execute(
        update(orders).where(orders.c.order_id.in_(claimed)).values(resume_after=epoch_now() + lease_s)
    )
    return load(connection, claimed)


def end_passes(connection: Connection, delays: Sequence[tuple[str, float]]) -> list[None]:
    """Say when each of these orders, if unfinished, is due again: (order id, seconds from now)."""
    connection.execute(
        update(orders)
        .where(orders.c.order_id == bindparam("key"), orders.c.status == OrderStatus.IN_PROGRESS.value)
        .values(resume_after=epoch_now() + bindparam("delay_s", type_=Float), passes=orders.c.passes + 1),
        [{"key": order_id, "delay_s": delay_s} for order_id, delay_s in delays],
    )
    return [None] * len(delays)


def make_due(connection: Connection, limit: int, order_id: str | None = None) -> int:
    """Make unfinished orders due at once, at most `limit` of those that wait; how many there were."""
    waiting = select(orders.c.order_id).where(
        orders.c.status == OrderStatus.IN_PROGRESS.value, orders.c.resume_after > epoch_now()
    )
    if order_id is not None:
        waiting = waiting.where(orders.c.order_id == order_id)
    ids = connection.scalars(waiting.limit(limit).with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(
            update(orders).where(orders.c.order_id.in_(ids)).values(resume_after=epoch_now(), passes=0)
        )
    return len(ids)


def census(connection: Connection) -> tuple[dict[str, int], datetime | None]:
    """How many orders there are by status, and when the oldest unfinished one was accepted."""
    counted = connection.execute(select(orders.c.status, func.count()).group_by(orders.c.status))
    unfinished = orders.c.status == OrderStatus.IN_PROGRESS.value
    oldest = connection.scalar(
        select(orders.c.accepted_at).where(unfinished).order_by(orders.c.order_id).limit(1)
    )
    return {row[0]: row[1] for row in counted}, oldest


def _written(connection: Connection, order_ids: Sequence[str]) -> set[str]:
    return set(connection.scalars(select(orders.c.order_id).where(orders.c.order_id.in_(order_ids))))


def _by_key(
    connection: Connection, placements: Sequence[Placement]
) -> dict[tuple[str, str | None], Accepted]:
    keys = [(placement.order.caller, placement.key) for placement in placements]
    query = select(orders.c.order_id, orders.c.caller, orders.c.idempotency_key, orders.c.fingerprint).where(
        tuple_(orders.c.caller, orders.c.idempotency_key).in_(keys)
    )
    return {
        (row.caller, row.idempotency_key): Accepted(row.order_id, row.fingerprint)
        for row in connection.execute(query)
    }


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
        "version": placement.progress.version,
        "completed_at": placement.progress.completed_at,
        "passes": 0,
    }


def _order(row: Row[Any]) -> Order:
    return Order(
        order_id=row.order_id,
        style=row.style,
        caller=row.caller,
        currency=row.currency,
        total_minor=row.total_minor,
        accepted_at=row.accepted_at,
        **orjson.loads(row.details),
    )


def _step_row(order_id: str, step: Step) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "name": step.name,
        "status": step.status.value,
        "attempts": step.attempts,
        "result": None if step.result is None else orjson.dumps(step.result).decode(),
        "reason": step.reason,
        "last_error": step.last_error,
        "since": step.since,
        "finished_at": step.finished_at,
    }


def _step(row: Row[Any]) -> Step:
    return Step(
        name=row.name,
        status=StepStatus(row.status),
        attempts=row.attempts,
        result=None if row.result is None else orjson.loads(row.result),
        reason=row.reason,
        last_error=row.last_error,
        since=row.since,
        finished_at=row.finished_at,
    )
