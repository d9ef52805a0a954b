"""The durable journal's SQL: one row for each order, with its progress. One SQL for both engines.

Each function works on one connection inside a transaction that its caller owns, and may be run again.
The row is the outbox too: `checkout.leases` says when somebody may take an unfinished order up.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Float, bindparam, func, select, tuple_, update

from checkout.orders import CHOREOGRAPHY, Order, OrderStatus, Progress, released
from checkout.tables import PROGRESS, order_in, orders, progress_in, steps_json
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
    """What a rule makes of an order's progress `before`, as it was last seen: `after`."""

    before: Progress
    after: Progress
    rule: Callable[[Progress], Progress]

    @property
    def order_id(self) -> str:
        """The order that is changed."""
        return self.before.order_id

    def then(self, following: "Change") -> "Change":
        """Both as one. `following` need not have seen this."""
        first, second = self.rule, following.rule
        after = following.after if following.before is self.after else second(self.after)
        return Change(self.before, after, lambda seen: second(first(seen)))


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


def accept(connection: Connection, placements: Sequence[Placement]) -> list[Accepted]:
    """Write new orders. An order id that is there already counts as accepted: a commit's answer got lost."""
    rows = [_order_row(placement) for placement in placements]
    result = connection.execute(_ACCEPT[connection.dialect.name], rows)
    if result.rowcount == len(placements):
        return [Accepted(p.order.order_id, p.fingerprint, p.progress) for p in placements]
    return _accepted_before(connection, placements)


def change(connection: Connection, changes: Sequence[Change]) -> list[Progress]:
    """Change orders; the progress of each afterwards.

    If somebody else has changed one since it was seen, or nothing seemed to change, all are read first, and
    changed as they stand. Raises KeyError for one that is not in the journal.
    """
    if all(each.after.version > each.before.version for each in changes):
        try:
            with connection.begin_nested():
                _write(connection, [(each.before, each.after) for each in changes])
        except StaleProgressError:
            pass
        else:
            return [each.after for each in changes]
    return _change_as_they_stand(connection, changes)


def _change_as_they_stand(connection: Connection, changes: Sequence[Change]) -> list[Progress]:
    before = progress_of(connection, {each.order_id for each in changes}, lock=True)
    after = dict(before)
    for each in changes:
        after[each.order_id] = each.rule(after[each.order_id])
    _write(connection, [(before[order_id], new) for order_id, new in after.items()])
    return [after[each.order_id] for each in changes]


def release(
    connection: Connection, *, name: str, at: datetime, after: str, limit: int
) -> tuple[list[Progress], str | None]:
    """Skip the pending steps of a retired participant, in up to `limit` unfinished choreographed orders.

    `after` is the order id to go on from. Returns the orders changed, and where to go on (None: the end).
    """
    query = (
        select(*PROGRESS)
        .where(orders.c.status == OrderStatus.IN_PROGRESS.value, orders.c.style == CHOREOGRAPHY)
        .where(orders.c.order_id > after)
        .order_by(orders.c.order_id)
        .limit(limit)
    )
    rows = connection.execute(query.with_for_update())
    replaced = [(before, released(before, [name], at)) for before in map(progress_in, rows)]
    _write(connection, replaced)
    changed = [new for before, new in replaced if new is not before]
    return changed, replaced[-1][0].order_id if len(replaced) == limit else None


def replace_progress(connection: Connection, before: Progress, after: Progress) -> None:
    """Put one progress in another's place. Raises StaleProgressError if `before` is not what is there."""
    _write(connection, [(before, after)])


def progress_of(
    connection: Connection, order_ids: Iterable[str], *, style: str | None = None, lock: bool = False
) -> dict[str, Progress]:
    """The progress of these orders (of one style), by id. `lock` keeps others from changing them."""
    query = select(*PROGRESS).where(orders.c.order_id.in_(sorted(order_ids))).order_by(orders.c.order_id)
    if style is not None:
        query = query.where(orders.c.style == style)
    rows = connection.execute(query.with_for_update() if lock else query)
    return {row.order_id: progress_in(row) for row in rows}


def lock(connection: Connection, order_ids: Iterable[str]) -> None:
    """Keep others from changing these orders. All at once, in the sequence that everybody takes them in."""
    query = select(orders.c.order_id).where(orders.c.order_id.in_(sorted(order_ids)))
    connection.execute(query.order_by(orders.c.order_id).with_for_update())


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


def census(connection: Connection) -> tuple[dict[str, int], datetime | None]:
    """How many orders there are by status, and when the oldest unfinished one was accepted."""
    counted = connection.execute(select(orders.c.status, func.count()).group_by(orders.c.status))
    unfinished = orders.c.status == OrderStatus.IN_PROGRESS.value
    oldest = connection.scalar(
        select(orders.c.accepted_at).where(unfinished).order_by(orders.c.order_id).limit(1)
    )
    return {row[0]: row[1] for row in counted}, oldest


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
        # In one sequence everywhere: transactions that take the same rows never wait in a ring.
        for before, after in sorted(replaced, key=lambda pair: pair[0].order_id)
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
