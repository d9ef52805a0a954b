"""The effect: one invoice for each order, numbered 1, 2, 3 and so on without gaps, and its SQL.

A number is drawn from a counter that stays locked until the invoice is committed with it, so a transaction
that fails gives its numbers back. Refuses nothing: validation has happened at the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Row, Table, Text, select

from servicekit.crashpoints import reach
from servicekit.db import Instant

metadata = MetaData()

counter = Table(
    "counter",
    metadata,
    Column("id", Integer, primary_key=True),  # the migration has made the one row
    Column("last_number", BigInteger, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("order_id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("issued_at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Bill:
    """One command: the order, who bought, and the total in minor units."""

    order_id: str
    name: str
    currency: str
    total_minor: int


@dataclass(frozen=True)
class Outcome:
    """What is stored for an order; `repeated` says that it was there before this command."""

    order_id: str
    number: int
    repeated: bool


def issue_invoices(connection: Connection, bills: Sequence[Bill]) -> list[Outcome]:
    """Invoice each order once; a repeated order gets its stored outcome. Outcomes in the given order."""
    order_ids = [bill.order_id for bill in bills]
    numbers = _numbers_of(connection, order_ids)
    fresh: dict[str, Bill] = {}
    if any(order_id not in numbers for order_id in order_ids):
        last = connection.execute(select(counter.c.last_number).with_for_update()).scalar_one()
        # Whoever held the counter until now may have invoiced some of these.
        numbers = _numbers_of(connection, order_ids)
        for bill in bills:
            if bill.order_id not in numbers:
                fresh.setdefault(bill.order_id, bill)
        numbers |= _add_invoices(connection, list(fresh.values()), last)
        reach("invoice.before-commit")
    outcomes = []
    for order_id in order_ids:
        repeated = fresh.pop(order_id, None) is None
        outcomes.append(Outcome(order_id, numbers[order_id], repeated))
    return outcomes


def _numbers_of(connection: Connection, order_ids: Sequence[str]) -> dict[str, int]:
    query = select(invoices.c.order_id, invoices.c.number).where(invoices.c.order_id.in_(order_ids))
    return {row.order_id: row.number for row in connection.execute(query)}


def _add_invoices(connection: Connection, bills: Sequence[Bill], last: int) -> dict[str, int]:
    now = datetime.now(UTC)
    new = [{"number": last + place, **vars(bill), "issued_at": now} for place, bill in enumerate(bills, 1)]
    if new:
        connection.execute(invoices.insert(), new)
        connection.execute(counter.update().values(last_number=last + len(new)))
    return {row["order_id"]: row["number"] for row in new}


def invoice_of(connection: Connection, order_id: str) -> Row[Any] | None:
    """The invoice of one order."""
    return connection.execute(select(invoices).where(invoices.c.order_id == order_id)).first()


def invoices_after(connection: Connection, number: int, limit: int) -> Sequence[Row[Any]]:
    """Up to `limit` invoices after a number, lowest first."""
    query = select(invoices).where(invoices.c.number > number)
    return connection.execute(query.order_by(invoices.c.number).limit(limit)).all()
