"""The effect: one confirmation for each order, recorded durably, and its SQL.

A row waits for delivery exactly as long as it has a `next_attempt_at` (the database's clock). Claiming rows
moves it on by a lease, so what a crashed process had claimed falls due by itself. Refuses nothing:
validation has happened at the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    func,
    select,
)

from servicekit.crashpoints import reach
from servicekit.db import Instant, epoch_now, insert_for

metadata = MetaData()

confirmations = Table(
    "confirmations",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("order_id", Text, nullable=False, unique=True),
    Column("recipient", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("content", Text, nullable=False),
    Column("recorded_at", Instant, nullable=False),
    Column("delivery", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", Double),
    Column("delivered_at", Instant),
    Column("reason", Text),
)
_c = confirmations.c

QUEUED, SENT, BOUNCED = "queued", "sent", "bounced"


@dataclass(frozen=True)
class Line:
    """One line of an order; the price is in minor units."""

    sku: str
    quantity: int
    unit_price_minor: int


@dataclass(frozen=True)
class Confirmation:
    """One command: what is to be confirmed to whom. `ship_to` are the lines of the postal address."""

    order_id: str
    recipient: str
    name: str
    currency: str
    total_minor: int
    lines: tuple[Line, ...]
    ship_to: tuple[str, ...]


@dataclass(frozen=True)
class Recorded:
    """What is stored for an order; `repeated` says that it was there before this command."""

    order_id: str
    delivery: str
    repeated: bool


@dataclass(frozen=True)
class Claim:
    """A confirmation that is ours to deliver until the lease ends; `attempt` counts from 1."""

    confirmation: Confirmation
    recorded_at: datetime
    attempt: int
    age_s: float


@dataclass(frozen=True)
class Settlement:
    """What became of an attempt: `sent`, `bounced`, or `queued` again, due in `retry_in_s`."""

    order_id: str
    attempt: int
    delivery: str
    reason: str | None = None
    retry_in_s: float | None = None


def record_confirmations(
    connection: Connection, commands: Sequence[Confirmation], *, deliver: bool = True
) -> list[Recorded]:
    """Record each order's confirmation once; a repeated order gets its stored outcome, the first body wins.

    Outcomes in the given order. Unless `deliver`, a new confirmation is never due.
    """
    first: dict[str, Confirmation] = {}
    for command in commands:
        first.setdefault(command.order_id, command)
    # In sorted order, so that two transactions never wait for each other.
    rows = [_row(first[order_id]) for order_id in sorted(first)]
    insert = insert_for(connection, confirmations).on_conflict_do_nothing(index_elements=["order_id"])
    insert = insert.values(next_attempt_at=epoch_now() if deliver else None)
    fresh = set(connection.execute(insert.returning(_c.order_id), rows).scalars())
    stored = dict.fromkeys(fresh, QUEUED)
    if known := first.keys() - fresh:
        query = select(_c.order_id, _c.delivery).where(_c.order_id.in_(known))
        stored |= {row.order_id: row.delivery for row in connection.execute(query)}
    if fresh:
        reach("email.before-commit")
    recorded = []
    for command in commands:
        repeated = command.order_id not in fresh
        fresh.discard(command.order_id)
        recorded.append(Recorded(command.order_id, stored[command.order_id], repeated))
    return recorded


def claim_due(connection: Connection, limit: int, lease_s: float) -> list[Claim]:
    """Take up to `limit` due confirmations, those due longest first, for `lease_s` seconds."""
    # As a subquery the clock is read once: PostgreSQL uses the index for no volatile function.
    now = select(epoch_now()).scalar_subquery()
    due = select(confirmations, epoch_now().label("now")).where(_c.next_attempt_at <= now)
    rows = connection.execute(
        due.order_by(_c.next_attempt_at).limit(limit).with_for_update(skip_locked=True)
    ).all()
    if rows:
        taken = confirmations.update().where(_c.seq.in_([row.seq for row in rows]))
        connection.execute(
            taken.values(next_attempt_at=epoch_now() + lease_s, attempts=confirmations.c.attempts + 1)
        )
    return [_claim(row) for row in rows]


def settle(connection: Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Store what became of attempts; False for one whose lease had passed to somebody else.

    `sent` is a fact, and stays true whoever holds the lease.
    """
    return [_settle(connection, settlement) for settlement in settlements]


def make_all_due(connection: Connection) -> None:
    """Make everything that waits due now: for the start of the one process that serves a database."""
    waiting = confirmations.update().where(_c.next_attempt_at.is_not(None))
    connection.execute(waiting.values(next_attempt_at=epoch_now()))


def undelivered(connection: Connection) -> tuple[int, float]:
    """How many confirmations wait for delivery, and the age of the oldest in seconds (0 if none)."""
    waiting = select(func.count(), func.min(_c.recorded_at), epoch_now()).where(
        _c.next_attempt_at.is_not(None)
    )
    count, oldest, now = connection.execute(waiting).one()
    return count, max(0.0, now - oldest.timestamp()) if oldest else 0.0


def confirmation(connection: Connection, order_id: str) -> Row[Any] | None:
    """One confirmation by its order."""
    return connection.execute(select(confirmations).where(_c.order_id == order_id)).first()


def confirmations_after(connection: Connection, seq: int, limit: int) -> Sequence[Row[Any]]:
    """Up to `limit` confirmations after a position, in the order in which they were recorded."""
    query = select(confirmations).where(_c.seq > seq)
    return connection.execute(query.order_by(_c.seq).limit(limit)).all()


def _row(command: Confirmation) -> dict[str, Any]:
    content = {"name": command.name, "lines": command.lines, "ship_to": command.ship_to}
    return {
        "order_id": command.order_id,
        "recipient": command.recipient,
        "currency": command.currency,
        "total_minor": command.total_minor,
        "content": orjson.dumps(content).decode(),
        "recorded_at": datetime.now(UTC),
        "delivery": QUEUED,
        "attempts": 0,
    }


def _claim(row: Row[Any]) -> Claim:
    content = orjson.loads(row.content)
    command = Confirmation(
        order_id=row.order_id,
        recipient=row.recipient,
        name=content["name"],
        currency=row.currency,
        total_minor=row.total_minor,
        lines=tuple(Line(**line) for line in content["lines"]),
        ship_to=tuple(content["ship_to"]),
    )
    return Claim(command, row.recorded_at, row.attempts + 1, row.now - row.recorded_at.timestamp())


def _settle(connection: Connection, settlement: Settlement) -> bool:
    update = confirmations.update().where(_c.order_id == settlement.order_id)
    if settlement.delivery == SENT:
        update = update.where(_c.delivery != SENT).values(delivered_at=datetime.now(UTC))
    else:
        update = update.where(_c.delivery == QUEUED, _c.attempts == settlement.attempt)
    waits = settlement.delivery == QUEUED
    result = connection.execute(
        update.values(
            delivery=settlement.delivery,
            reason=settlement.reason,
            next_attempt_at=epoch_now() + settlement.retry_in_s if waits else None,
        )
    )
    return result.rowcount == 1
