"""Two processes on one PostgreSQL: locks are taken in one order, and nothing is sold twice."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import pytest
from sqlalchemy import Connection, create_engine, text

from servicekit.db import Database
from servicekit.migrate import migrate
from tests.warehouse_svc import ledger
from tests.warehouse_svc.conftest import PACKAGE
from tests.warehouse_svc.ledger import command, levels, states
from warehouse_svc.backorders import set_on_hand
from warehouse_svc.errors import ShipmentStateError, SkuRefusedError, StockAllocatedError
from warehouse_svc.shipments import Prepared, PrepareShipment, advance_shipment, prepare_shipments
from warehouse_svc.stock import StockRules

T = TypeVar("T")
SKUS = [f"SKU-{letter}" for letter in "ABCDEFGH"]
RULES = StockRules(initial_stock=40)


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two processes' worth of connections; PostgreSQL must not have had to resolve a deadlock."""
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=20) as one, Database(postgres_url, timeout_s=20) as two:
        yield one, two
        await one.read(ledger.check)
    await asyncio.to_thread(_assert_no_deadlock, postgres_url)


def _assert_no_deadlock(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    with engine.connect() as connection:  # the others' figures are there once they have disconnected
        assert connection.execute(query).scalar_one() == 0
    engine.dispose()


async def _prepare(database: Database, *commands: PrepareShipment) -> list[Prepared]:
    results = await database.batch(partial(prepare_shipments, rules=RULES), commands)
    assert all(isinstance(result, Prepared) for result in results), results
    return [result for result in results if isinstance(result, Prepared)]


async def test_orders_that_name_the_same_skus_in_opposite_order_never_deadlock_or_oversell(
    pair: tuple[Database, Database],
) -> None:
    groups = [
        [
            command(f"o{group}-{n}", *((sku, 1) for sku in (SKUS if group % 2 else reversed(SKUS))))
            for n in range(5)
        ]
        for group in range(16)
    ]
    made = await asyncio.gather(*(_prepare(pair[g % 2], *group) for g, group in enumerate(groups)))
    outcomes = [prepared.state for group in made for prepared in group]
    assert outcomes.count("preparing") == 40
    assert outcomes.count("backordered") == 40
    assert await pair[0].read(levels) == dict.fromkeys(SKUS, (40, 40))


async def test_the_same_orders_sent_to_two_processes_become_one_shipment_each(
    pair: tuple[Database, Database],
) -> None:
    for number in range(10):
        unseen = [(f"NEW-{number}-{n}", 1) for n in range(8)]
        orders = [command(f"o{number}-{n}", (SKUS[n], 1), *unseen) for n in range(6)]
        one, two = await asyncio.gather(_prepare(pair[0], *orders), _prepare(pair[1], *reversed(orders)))
        assert [p.shipment_id for p in one] == [p.shipment_id for p in reversed(two)]
        assert {p.repeated for p in one} | {p.repeated for p in two} == {True, False}
        for first, second in zip(one, reversed(two), strict=True):
            assert first.repeated != second.repeated
    assert (await pair[0].read(levels))[SKUS[0]] == (40, 10)


async def test_preparing_advancing_and_restocking_at_once_keep_the_tables_in_agreement(
    pair: tuple[Database, Database],
) -> None:
    chance = random.Random(7)
    orders = [
        command(f"o{n}", *((sku, chance.randint(1, 9)) for sku in chance.sample(SKUS, 3))) for n in range(60)
    ]

    async def advance(database: Database, order: PrepareShipment) -> None:
        for to in ("packed", "shipped"):
            try:
                await database.write(partial(advance_shipment, order_id=order.order_id, to=to, rules=RULES))
            except ShipmentStateError:
                return

    async def live(database: Database, order: PrepareShipment) -> None:
        await _prepare(database, order)
        await advance(database, order)

    async def restock(database: Database, sku: str) -> None:
        try:
            await set_on_hand(database, sku, chance.randint(20, 60), RULES)
        except StockAllocatedError:
            return

    work = [live(pair[n % 2], order) for n, order in enumerate(orders)]
    work += [restock(pair[n % 2], sku) for n, sku in enumerate(SKUS * 3)]
    chance.shuffle(work)
    async with asyncio.timeout(60):
        await asyncio.gather(*work)


async def meanwhile(
    postgres_url: str, first: Callable[[Connection], object], *second: Awaitable[T]
) -> list[T]:
    """Do `first` and hold its commit back until each of `second` waits for its locks; what those return."""
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        first(connection)
        waiting = asyncio.gather(*second)
        await asyncio.to_thread(_wait_for_blocked, postgres_url, len(second))
        connection.commit()
        results = await waiting
    engine.dispose()
    return results


async def test_a_backorder_that_commits_while_new_stock_waits_for_its_lock_is_filled_too(
    postgres_url: str, pair: tuple[Database, Database]
) -> None:
    nothing = StockRules(initial_stock=0)
    order = command("o1", ("BOOK-1", 3), ("PEN-7", 1))
    await meanwhile(
        postgres_url,
        lambda c: prepare_shipments(c, [order], nothing),
        set_on_hand(pair[0], "PEN-7", 3, nothing),
        set_on_hand(pair[1], "BOOK-1", 3, nothing),
    )
    assert await pair[0].read(states) == {"o1": "preparing"}


@pytest.mark.parametrize("sku", ["BOOK-1", "PEN-7"])
async def test_an_order_that_another_process_has_just_prepared_gets_that_shipment(
    postgres_url: str, pair: tuple[Database, Database], sku: str
) -> None:
    # The same SKU: it waits for the stock; another one: for the order's row.
    theirs: list[Prepared | SkuRefusedError] = []
    (ours,) = await meanwhile(
        postgres_url,
        lambda c: theirs.extend(prepare_shipments(c, [command("o1", ("BOOK-1", 1))], RULES)),
        _prepare(pair[0], command("o1", (sku, 2))),
    )
    assert isinstance(theirs[0], Prepared)
    assert (ours[0].shipment_id, ours[0].repeated) == (theirs[0].shipment_id, True)
    assert (await pair[0].read(levels))["BOOK-1"] == (40, 1)


async def test_a_shipment_that_another_process_is_advancing_is_not_set_back(
    postgres_url: str, pair: tuple[Database, Database]
) -> None:
    await _prepare(pair[0], command("o1"))

    def pack_and_ship(connection: Connection) -> None:
        advance_shipment(connection, "o1", "packed", RULES)
        advance_shipment(connection, "o1", "shipped", RULES)

    with pytest.raises(ShipmentStateError):
        await meanwhile(
            postgres_url,
            pack_and_ship,
            pair[0].write(partial(advance_shipment, order_id="o1", to="packed", rules=RULES)),
        )
    assert await pair[0].read(states) == {"o1": "shipped"}


def _wait_for_blocked(postgres_url: str, sessions: int) -> None:
    engine = create_engine(postgres_url)
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with engine.connect() as connection:
        for _ in range(500):
            if connection.execute(query).scalar_one() == sessions:
                break
            connection.execute(text("SELECT pg_sleep(0.01)"))
            connection.rollback()
        else:
            raise AssertionError("nobody waits for the lock")
    engine.dispose()
