"""What must hold in the warehouse's tables at rest, whatever happened before."""

from collections import Counter
from typing import Any

from sqlalchemy import Connection, select

from warehouse_svc.shipments import BACKORDERED, PACKED, PREPARING, PrepareShipment, needs_of
from warehouse_svc.stock import StockRules
from warehouse_svc.tables import backorders, shipments, stock

RULES = StockRules(initial_stock=100)
DEV_RULES = StockRules(initial_stock=100, dev_skus=True)
SHIP_TO = {
    "name": "Ada Lovelace",
    "line1": "12 St James Sq",
    "line2": None,
    "city": "London",
    "region": None,
    "postcode": "SW1Y 4JH",
    "country": "GB",
}


def command(order_id: str, *wanted: tuple[str, int]) -> PrepareShipment:
    lines = [{"sku": sku, "quantity": quantity} for sku, quantity in wanted or (("BOOK-1", 1),)]
    return PrepareShipment(order_id, lines, SHIP_TO)


def check(connection: Connection) -> None:
    """Assert that stock, shipments and backorders agree with each other."""
    levels = {row.sku: row for row in connection.execute(select(stock))}
    held: Counter[str] = Counter()
    waiting: dict[tuple[str, int], int] = {}
    unfilled = []
    for row in connection.execute(select(shipments)):
        needs = needs_of(row.lines)
        if row.state in (PREPARING, PACKED):
            held.update(needs)
        if row.state == BACKORDERED:
            waiting |= {(sku, row.seq): quantity for sku, quantity in needs.items()}
            unfilled.append(needs)
    for level in levels.values():
        assert 0 <= level.allocated <= level.on_hand
    assert {sku: row.allocated for sku, row in levels.items() if row.allocated} == dict(held)
    assert {(row.sku, row.seq): row.quantity for row in connection.execute(select(backorders))} == waiting
    free = {sku: row.on_hand - row.allocated for sku, row in levels.items()}
    for needs in unfilled:
        assert any(free[sku] < quantity for sku, quantity in needs.items()), "stock idles beside a backorder"


def levels(connection: Connection) -> dict[str, tuple[int, int]]:
    """(on hand, allocated) by SKU."""
    return {row.sku: (row.on_hand, row.allocated) for row in connection.execute(select(stock))}


def states(connection: Connection) -> dict[str, str]:
    """State by order id."""
    rows: Any = connection.execute(select(shipments.c.order_id, shipments.c.state))
    return {row.order_id: row.state for row in rows}
