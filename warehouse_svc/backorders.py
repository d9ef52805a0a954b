"""Setting a SKU's on-hand quantity, and filling the backorders that this makes possible.

Oldest first, each all or nothing: a younger one passes an older one only if that cannot be filled.
Bounded: each transaction looks at up to `FILL_BATCH` backorders, and what comes in meanwhile is left alone,
since it was allocated from the new level already. Refuses to go below what is allocated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

from sqlalchemy import Column, Connection, Row, func, select

from servicekit.db import Database
from warehouse_svc.errors import SkuRefusedError, StockAllocatedError
from warehouse_svc.shipments import PREPARING, needs_of
from warehouse_svc.stock import Level, StockRules, allocate, lock_levels, save_levels
from warehouse_svc.tables import backorders, shipments

FILL_BATCH = 50


@dataclass(frozen=True)
class Filling:
    """One pass: the level after it, how many backorders it filled, and which are left to look at.

    `last` is the sequence of the youngest backorder that this change of stock concerns; `after`, where
    the next pass goes on, or None if this was the last.
    """

    level: Level
    filled: int
    last: int
    after: int | None


async def set_on_hand(database: Database, sku: str, on_hand: int, rules: StockRules) -> tuple[Level, int]:
    """Set a SKU's on-hand quantity in units; its level then, and how many backorders were filled.

    Repeating it is safe, and goes on where a crash between two passes left off.
    Raises StockAllocatedError, SkuRefusedError for a development SKU, or StorageUnavailableError.
    """
    if rules.refuses(sku) or rules.never_stocks(sku):
        raise SkuRefusedError(f"{sku} is a development SKU: it is never in stock.")
    filling = await database.write(lambda c: restock(c, sku, on_hand, rules))
    filled = filling.filled
    while filling.after is not None:
        following = partial(fill, sku=sku, rules=rules, after=filling.after, last=filling.last)
        filling = await database.write(following)
        filled += filling.filled
    return filling.level, filled


def restock(connection: Connection, sku: str, on_hand: int, rules: StockRules) -> Filling:
    """Set the quantity and do the first pass, as one transaction. Raises StockAllocatedError."""
    levels = _lock_with_waiting(connection, sku, rules, after=0)
    level = levels[sku]
    if on_hand < level.allocated:
        raise StockAllocatedError(f"{level.allocated} units of {sku} are allocated to shipments.")
    level.on_hand = on_hand
    newest = select(func.coalesce(func.max(backorders.c.seq), 0)).where(backorders.c.sku == sku)
    return _fill_locked(connection, sku, levels, after=0, last=connection.execute(newest).scalar_one())


def fill(connection: Connection, sku: str, rules: StockRules, after: int, last: int) -> Filling:
    """A further pass over the backorders of a SKU, from `after` (exclusive) to `last`."""
    levels = _lock_with_waiting(connection, sku, rules, after)
    return _fill_locked(connection, sku, levels, after, last)


def _lock_with_waiting(connection: Connection, sku: str, rules: StockRules, after: int) -> dict[str, Level]:
    # Whoever waits for this SKU may need others too, and all must be locked at once.
    waiting = _waiting_for(connection, sku, after)
    skus = set(chain.from_iterable(needs_of(row.lines) for row in waiting))
    return lock_levels(connection, skus | {sku}, rules)


def _waiting_for(connection: Connection, sku: str, after: int) -> Sequence[Row[Any]]:
    columns: list[Column[Any]] = [shipments.c.seq, shipments.c.lines]
    query = (
        select(*columns)
        .join(backorders, backorders.c.seq == shipments.c.seq)
        .where(backorders.c.sku == sku, backorders.c.seq > after)
        .order_by(backorders.c.seq)
        .limit(FILL_BATCH)
    )
    return connection.execute(query).all()


def _fill_locked(
    connection: Connection, sku: str, levels: dict[str, Level], after: int, last: int
) -> Filling:
    # Read anew: before we had the lock, others may have filled some, or added some.
    waiting = [row for row in _waiting_for(connection, sku, after) if row.seq <= last]
    complete = len(waiting) < FILL_BATCH
    filled = []
    for row in waiting:
        needs = needs_of(row.lines)
        if not needs.keys() <= levels.keys():  # added meanwhile, so not locked: the next pass's
            complete = False
            break
        after = row.seq
        if allocate(levels, needs):
            filled.append(row.seq)
    if filled:
        change = shipments.update().where(shipments.c.seq.in_(filled))
        connection.execute(change.values(state=PREPARING, changed_at=datetime.now(UTC)))
        connection.execute(backorders.delete().where(backorders.c.seq.in_(filled)))
    save_levels(connection, levels)
    finished = complete or levels[sku].available == 0
    return Filling(levels[sku], len(filled), last, None if finished else after)
