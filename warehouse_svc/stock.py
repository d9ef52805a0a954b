"""Stock levels: locking, allocating and saving them, within the caller's transaction.

A transaction locks all SKUs that it will touch at once, in sorted order, before it touches anything else:
so two never wait for each other. Refuses to oversell; the tables' constraints refuse it once more.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select

from servicekit.db import insert_for
from warehouse_svc.tables import stock

MAX_ON_HAND = 1_000_000_000
# With WAREHOUSE_DEV_SKUS these two let people see a refusal and a backorder.
REFUSED_SKU = "REFUSE-ME"
BACKORDERED_SKU = "BACKORDER-ME"


@dataclass(frozen=True)
class StockRules:
    """What an unseen SKU starts with, and whether the two development SKUs are special."""

    initial_stock: int
    dev_skus: bool = False

    def refuses(self, sku: str) -> bool:
        """Whether an order that names this SKU is refused as a whole."""
        return self.dev_skus and sku == REFUSED_SKU

    def never_stocks(self, sku: str) -> bool:
        """Whether this SKU is backordered whatever its level."""
        return self.dev_skus and sku == BACKORDERED_SKU

    def unseen(self, sku: str) -> "Level":
        """The level of a SKU that nobody has ordered or stocked before."""
        never = self.never_stocks(sku)
        return Level(0 if never else self.initial_stock, 0, never)


@dataclass
class Level:
    """A SKU's stock in units; `on_hand` includes what is allocated and not yet shipped."""

    on_hand: int
    allocated: int
    never_stocked: bool = False
    _stored: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._stored = (self.on_hand, self.allocated)

    @property
    def available(self) -> int:
        """What may still be allocated."""
        return 0 if self.never_stocked else self.on_hand - self.allocated

    @property
    def changed(self) -> bool:
        """Whether the database holds something else."""
        return self._stored != (self.on_hand, self.allocated)


def lock_levels(connection: Connection, skus: Collection[str], rules: StockRules) -> dict[str, Level]:
    """The levels of these SKUs, locked until the transaction ends; unseen ones are created first.

    Call it once in a transaction, and before any other lock. Rows are created before the first one is
    locked, so whoever waits to create a row holds no lock that somebody else might wait for.
    """
    ordered = sorted(skus)
    known = set(connection.execute(select(stock.c.sku).where(stock.c.sku.in_(ordered))).scalars())
    unseen = [
        {"sku": sku, "on_hand": rules.unseen(sku).on_hand, "allocated": 0}
        for sku in ordered
        if sku not in known
    ]
    if unseen:
        connection.execute(insert_for(connection, stock).on_conflict_do_nothing(), unseen)
    query = select(stock).where(stock.c.sku.in_(ordered)).order_by(stock.c.sku).with_for_update()
    return {
        row.sku: Level(row.on_hand, row.allocated, rules.never_stocks(row.sku))
        for row in connection.execute(query)
    }


def allocate(levels: Mapping[str, Level], needs: Mapping[str, int]) -> bool:
    """Allocate what one shipment needs, by SKU: all of it, or nothing and False."""
    if any(levels[sku].available < quantity for sku, quantity in needs.items()):
        return False
    for sku, quantity in needs.items():
        levels[sku].allocated += quantity
    return True


def take_out(levels: Mapping[str, Level], needs: Mapping[str, int]) -> None:
    """Take what was allocated to one shipment out of the warehouse, when it is shipped."""
    for sku, quantity in needs.items():
        levels[sku].on_hand -= quantity
        levels[sku].allocated -= quantity


def save_levels(connection: Connection, levels: Mapping[str, Level]) -> None:
    """Write back the locked levels that have changed."""
    changed = [
        {"of_sku": sku, "new_on_hand": level.on_hand, "new_allocated": level.allocated}
        for sku, level in levels.items()
        if level.changed
    ]
    if changed:
        update = stock.update().where(stock.c.sku == bindparam("of_sku"))
        update = update.values(on_hand=bindparam("new_on_hand"), allocated=bindparam("new_allocated"))
        connection.execute(update, changed)


def read_level(connection: Connection, sku: str, rules: StockRules) -> Level:
    """The level of one SKU, without locking or creating it."""
    row = connection.execute(select(stock).where(stock.c.sku == sku)).first()
    return rules.unseen(sku) if row is None else Level(row.on_hand, row.allocated, rules.never_stocks(sku))
