"""The warehouse hears of orders: each is shipped once, and what it refuses holds up nobody else."""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, select

from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant
from tests.support.hearing import GIVEN, hear, hear_a_bad_one, order_created
from tests.warehouse_svc.conftest import CONDUCTOR
from warehouse_svc.consumer import OrderCreated, participant
from warehouse_svc.settings import Settings
from warehouse_svc.tables import shipments, stock

Part = Callable[[Bus], Participant[OrderCreated]]


def part_on(database: Database, initial_stock: int = 100) -> Part:
    """The service's part on this database."""
    settings = Settings(
        **GIVEN,
        initial_stock=initial_stock,
        dev_skus=True,
    )
    return lambda bus: participant(bus, database, settings, CollectorRegistry())


def wanting(order_id: str, sku: str, quantity: int = 1) -> bytes:
    """The event of an order for one SKU."""
    return order_created(order_id, lines=[{"sku": sku, "quantity": quantity, "unit_price_minor": 1}])


async def states(database: Database) -> dict[str, str]:
    """The state of every shipment, by order."""

    def read(connection: Connection) -> dict[str, str]:
        rows = connection.execute(select(shipments)).all()
        assert len({row.order_id for row in rows}) == len(rows)
        return {row.order_id: row.state for row in rows}

    return await database.read(read)


async def allocated(database: Database, sku: str) -> int:
    """How many units of a SKU are allocated."""

    def read(connection: Connection) -> int:
        return int(connection.execute(select(stock.c.allocated).where(stock.c.sku == sku)).scalar_one())

    return await database.read(read)


async def test_an_order_heard_twice_and_out_of_order_is_shipped_once(database: Database) -> None:
    part = part_on(database)
    a, b, c = (wanting(each, "BOOK-1", 2) for each in "abc")
    first = await hear(part, b, a, a)
    again = await hear(part, a, c, b)  # days later, by another process
    assert await states(database) == dict.fromkeys("abc", "preparing")
    assert await allocated(database, "BOOK-1") == 6
    assert first.statuses() | again.statuses() == dict.fromkeys("abc", "succeeded")
    assert again.data()["a"] == first.data()["a"]
    assert again.dead_letters == []


async def test_an_order_both_told_and_heard_is_shipped_once(
    database: Database, client: httpx.AsyncClient
) -> None:
    a, b = wanting("a", "BOOK-1"), wanting("b", "BOOK-1")
    commands = [orjson.loads(event)["data"] for event in (a, b)]
    first = await client.post("/shipments", json=commands[0], headers=CONDUCTOR)
    told = await hear(part_on(database), a, b)
    last = await client.post("/shipments", json=commands[1], headers=CONDUCTOR)
    assert (first.status_code, last.status_code) == (201, 200)
    assert told.statuses() == dict.fromkeys("ab", "succeeded")
    assert told.data()["a"]["result"]["shipment_id"] == first.json()["shipment_id"]
    assert await allocated(database, "BOOK-1") == 2


async def test_a_backordered_shipment_is_a_success(database: Database) -> None:
    told = await hear(part_on(database, initial_stock=3), wanting("a", "PEN-7", 2), wanting("b", "PEN-7", 2))
    assert await states(database) == {"a": "preparing", "b": "backordered"}
    assert [told.data()[each]["result"]["state"] for each in "ab"] == ["preparing", "backordered"]


async def test_a_refused_sku_fails_alone_with_the_reason_that_a_caller_gets(
    database: Database, client: httpx.AsyncClient
) -> None:
    refused = wanting("bad", "REFUSE-ME")
    told = await hear_a_bad_one(part_on(database), refused)
    assert await states(database) == dict.fromkeys("ab", "preparing")
    problem = await client.post("/shipments", json=orjson.loads(refused)["data"], headers=CONDUCTOR)
    assert problem.json()["type"].endswith("/" + told.data()["bad"]["reason"])


@pytest.mark.parametrize(
    "changes",
    [
        {"lines": []},
        {"lines": [{"sku": "BOOK-1", "quantity": 2**63, "unit_price_minor": 1}]},
        {"lines": [{"sku": "BOOK\0", "quantity": 1, "unit_price_minor": 1}]},
        {"ship_to": {"name": "Ada"}},
    ],
)
async def test_what_cannot_be_shipped_fails_alone(database: Database, changes: dict[str, Any]) -> None:
    await hear_a_bad_one(part_on(database), order_created("bad", **changes))
    assert await states(database) == dict.fromkeys("ab", "preparing")
