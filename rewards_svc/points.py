"""The effect: a points ledger, one entry for each order, and its SQL.

Points are whole major units spent; an entry of 0 points is recorded too. A balance belongs to one
address, lower-cased and IDNA-normalised. Refuses nothing: validation has happened at the edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Integer, MetaData, Row, Table, Text, select
from uuid_utils import uuid7

from servicekit.crashpoints import reach
from servicekit.db import Instant, insert_for
from servicekit.fields import minor_units, parse_address

metadata = MetaData()

balances = Table(
    "balances",
    metadata,
    Column("balance_id", Text, primary_key=True),
    Column("address", Text, nullable=False, unique=True),
    Column("points", BigInteger, nullable=False),
    Column("opened_at", Instant, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("order_id", Text, nullable=False, unique=True),
    Column("balance_id", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("at", Instant, nullable=False),
)


@dataclass(frozen=True)
class Credit:
    """One command: the order, the member's address, and what was spent in minor units."""

    order_id: str
    email: str
    currency: str
    total_minor: int


@dataclass(frozen=True)
class Outcome:
    """What is stored for an order; `repeated` says that it was there before this command."""

    order_id: str
    balance_id: str
    points: int
    balance: int
    repeated: bool


def points_for(total_minor: int, currency: str) -> int:
    """Whole major units in an amount: 4348 GBP minor units are 43 points, 500 JPY are 500."""
    return total_minor // int(10 ** minor_units(currency))


def normalise(email: str) -> str:
    """The address under which a member's balance is kept: lower case, the domain in its ASCII form."""
    parsed = parse_address(email)
    return f"{parsed.local_part}@{parsed.ascii_domain}".lower()


def credit_points(connection: Connection, credits: Sequence[Credit]) -> list[Outcome]:
    """Credit each order once; a repeated order gets its stored outcome. Outcomes in the given order."""
    known = _entries_of(connection, [credit.order_id for credit in credits])
    fresh: dict[str, Credit] = {}
    for credit in credits:
        if credit.order_id not in known:
            fresh.setdefault(credit.order_id, credit)
    if fresh:
        _add_entries(connection, list(fresh.values()))
        known |= _entries_of(connection, list(fresh))
        reach("rewards.before-commit")
    outcomes = []
    for credit in credits:
        entry = known[credit.order_id]
        repeated = fresh.pop(credit.order_id, None) is None
        outcomes.append(
            Outcome(entry.order_id, entry.balance_id, entry.points, entry.balance_after, repeated)
        )
    return outcomes


def _entries_of(connection: Connection, order_ids: Sequence[str]) -> dict[str, Row[Any]]:
    rows = connection.execute(select(entries).where(entries.c.order_id.in_(order_ids)))
    return {row.order_id: row for row in rows}


def _add_entries(connection: Connection, credits: Sequence[Credit]) -> None:
    now = datetime.now(UTC)
    addresses = {credit.order_id: normalise(credit.email) for credit in credits}
    standing = _lock_balances(connection, sorted(set(addresses.values())), now)
    points = {address: row.points for address, row in standing.items()}
    new = []
    for credit in credits:
        address = addresses[credit.order_id]
        earned = points_for(credit.total_minor, credit.currency)
        points[address] += earned
        new.append(
            {
                "order_id": credit.order_id,
                "balance_id": standing[address].balance_id,
                "points": earned,
                "balance_after": points[address],
                "at": now,
            }
        )
    connection.execute(entries.insert(), new)
    for address, total in points.items():
        connection.execute(balances.update().where(balances.c.address == address).values(points=total))


def _lock_balances(connection: Connection, addresses: Sequence[str], now: datetime) -> dict[str, Row[Any]]:
    # Opened and locked in sorted order, so that two transactions never wait for each other.
    opening = [
        {"balance_id": str(uuid7()), "address": address, "points": 0, "opened_at": now}
        for address in addresses
    ]
    insert = insert_for(connection, balances).on_conflict_do_nothing(index_elements=["address"])
    connection.execute(insert, opening)
    query = select(balances).where(balances.c.address.in_(addresses))
    rows = connection.execute(query.order_by(balances.c.address).with_for_update())
    return {row.address: row for row in rows}


def balance(connection: Connection, balance_id: str) -> Row[Any] | None:
    """One balance by its id."""
    return connection.execute(select(balances).where(balances.c.balance_id == balance_id)).first()


def balance_of(connection: Connection, email: str) -> Row[Any] | None:
    """One balance by the member's address, in any spelling."""
    return connection.execute(select(balances).where(balances.c.address == normalise(email))).first()


def entries_after(
    connection: Connection, seq: int, limit: int, balance_id: str | None = None
) -> Sequence[Row[Any]]:
    """Up to `limit` entries after a position, oldest first; of one balance, or of all."""
    query = select(entries).where(entries.c.seq > seq)
    if balance_id is not None:
        query = query.where(entries.c.balance_id == balance_id)
    return connection.execute(query.order_by(entries.c.seq).limit(limit)).all()
