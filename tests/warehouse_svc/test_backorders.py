"""Setting the on-hand quantity, and the backorders that it fills, on both engines."""

from functools import partial

import pytest
from sqlalchemy import Connection

from servicekit.db import Database, StorageUnavailableError
from tests.warehouse_svc.ledger import DEV_RULES, RULES, command, levels, states
from tests.warehouse_svc.test_shipments import prepare
from warehouse_svc import backorders
from warehouse_svc.backorders import set_on_hand
from warehouse_svc.errors import SkuRefusedError, StockAllocatedError
from warehouse_svc.shipments import advance_shipment, prepare_shipments
from warehouse_svc.stock import StockRules, read_level

NOTHING = StockRules(initial_stock=0)


async def test_an_unseen_sku_starts_at_the_initial_stock_without_being_stored(database: Database) -> None:
    level = await database.read(lambda c: read_level(c, "BOOK-1", RULES))
    assert (level.on_hand, level.allocated, level.available) == (100, 0, 100)
    assert await database.read(levels) == {}


async def test_on_hand_can_be_set_to_what_is_allocated_and_not_below(database: Database) -> None:
    await prepare(database, command("o1", ("BOOK-1", 7)))
    with pytest.raises(StockAllocatedError, match="7 units"):
        await set_on_hand(database, "BOOK-1", 6, RULES)
    assert await database.read(levels) == {"BOOK-1": (100, 7)}
    for _ in range(2):
        level, filled = await set_on_hand(database, "BOOK-1", 7, RULES)
        assert (level.on_hand, level.available, filled) == (7, 0, 0)


async def test_shipping_takes_goods_out_of_on_hand_so_that_less_may_be_set(database: Database) -> None:
    await prepare(database, command("o1", ("BOOK-1", 7)))
    for to in ("packed", "shipped"):
        await database.write(partial(advance_shipment, order_id="o1", to=to, rules=RULES))
    assert await database.read(levels) == {"BOOK-1": (93, 0)}
    level, _ = await set_on_hand(database, "BOOK-1", 0, RULES)
    assert level.on_hand == 0


async def test_new_stock_fills_backorders_oldest_first(database: Database) -> None:
    for order_id in ("o1", "o2", "o3"):
        await prepare(database, command(order_id, ("BOOK-1", 4)), rules=NOTHING)
    level, filled = await set_on_hand(database, "BOOK-1", 9, NOTHING)
    assert (level.available, filled) == (1, 2)
    assert await database.read(states) == {"o1": "preparing", "o2": "preparing", "o3": "backordered"}
    assert await database.read(levels) == {"BOOK-1": (9, 8)}
    _, filled = await set_on_hand(database, "BOOK-1", 9, NOTHING)
    assert filled == 0


async def test_a_younger_backorder_passes_an_older_one_only_if_that_cannot_be_filled(
    database: Database,
) -> None:
    await prepare(database, command("older", ("BOOK-1", 5)), rules=NOTHING)
    await prepare(database, command("other", ("BOOK-1", 1), ("PEN-7", 1)), rules=NOTHING)
    await prepare(database, command("younger", ("BOOK-1", 3)), rules=NOTHING)
    await set_on_hand(database, "BOOK-1", 4, NOTHING)
    held = {"older": "backordered", "other": "backordered", "younger": "preparing"}
    assert await database.read(states) == held
    await set_on_hand(database, "PEN-7", 1, NOTHING)
    assert await database.read(states) == held | {"other": "preparing"}
    await set_on_hand(database, "BOOK-1", 9, NOTHING)
    assert (await database.read(states))["older"] == "preparing"


async def test_more_backorders_than_one_pass_takes_are_all_looked_at(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backorders, "FILL_BATCH", 3)
    for number in range(10):  # every third is too large to be filled
        quantity = 50 if number % 3 == 0 else 1
        await prepare(database, command(f"o{number}", ("BOOK-1", quantity)), rules=NOTHING)
    level, filled = await set_on_hand(database, "BOOK-1", 10, NOTHING)
    assert (filled, level.allocated) == (6, 6)
    assert {order for order, state in (await database.read(states)).items() if state == "backordered"} == {
        "o0",
        "o3",
        "o6",
        "o9",
    }


async def test_a_put_that_was_cut_short_between_two_passes_goes_on_when_repeated(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise StorageUnavailableError("the power went out")

    monkeypatch.setattr(backorders, "FILL_BATCH", 2)
    for number in range(5):
        await prepare(database, command(f"o{number}", ("BOOK-1", 1)), rules=NOTHING)
    with monkeypatch.context() as broken:
        broken.setattr(backorders, "fill", unavailable)
        with pytest.raises(StorageUnavailableError):
            await set_on_hand(database, "BOOK-1", 5, NOTHING)
    assert (await database.read(levels))["BOOK-1"] == (5, 2)
    level, filled = await set_on_hand(database, "BOOK-1", 5, NOTHING)
    assert (level.allocated, filled) == (5, 3)


async def test_the_development_skus_are_never_stocked(database: Database) -> None:
    for _ in range(2):
        await prepare(database, command("o1", ("BACKORDER-ME", 1)), rules=DEV_RULES)
    assert await database.read(states) == {"o1": "backordered"}
    for sku in ("BACKORDER-ME", "REFUSE-ME"):
        with pytest.raises(SkuRefusedError):
            await set_on_hand(database, sku, 5, DEV_RULES)
    assert (await database.read(lambda c: read_level(c, "BACKORDER-ME", DEV_RULES))).available == 0


async def test_the_tables_themselves_refuse_to_be_oversold(database: Database) -> None:
    await prepare(database, command("o1", ("BOOK-1", 7)))

    def oversell(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE stock SET allocated = on_hand + 1")

    with pytest.raises(Exception, match=r"(?i)check"):
        await database.write(oversell)


async def test_a_command_that_runs_again_after_a_lost_commit_allocates_once(database: Database) -> None:
    wanted = [command("o1", ("BOOK-1", 7)), command("o2", ("BOOK-1", 101))]
    perform = partial(prepare_shipments, rules=RULES)
    await database.batch(perform, wanted)
    await database.batch(perform, wanted)
    assert await database.read(levels) == {"BOOK-1": (100, 7)}
