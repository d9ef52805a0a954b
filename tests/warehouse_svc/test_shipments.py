"""The effect on both engines: one shipment for each order, whatever comes twice or with bad neighbours."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from servicekit import crashpoints
from servicekit.db import Database
from tests.warehouse_svc.ledger import DEV_RULES, RULES, command, levels, states
from warehouse_svc.backorders import set_on_hand
from warehouse_svc.errors import ShipmentNotFoundError, ShipmentStateError, SkuRefusedError
from warehouse_svc.shipments import (
    Prepared,
    PrepareShipment,
    advance_shipment,
    prepare_shipments,
    read_shipment,
    shipments_after,
)
from warehouse_svc.stock import StockRules


async def prepare(
    database: Database, *commands: PrepareShipment, rules: StockRules = RULES
) -> Sequence[Prepared | Exception]:
    return await database.batch(partial(prepare_shipments, rules=rules), commands)


async def prepare_one(database: Database, wanted: PrepareShipment, rules: StockRules = RULES) -> Prepared:
    (outcome,) = await prepare(database, wanted, rules=rules)
    assert isinstance(outcome, Prepared), outcome
    return outcome


async def test_an_order_is_prepared_once_and_the_first_body_wins(database: Database) -> None:
    first = await prepare_one(database, command("o1", ("BOOK-1", 2)))
    again = await prepare_one(database, command("o1", ("PEN-7", 5)))
    assert (first.repeated, again.repeated) == (False, True)
    assert first.state == again.state == "preparing"
    assert first.shipment_id == again.shipment_id
    assert await database.read(levels) == {"BOOK-1": (100, 2)}
    assert len(await database.read(lambda c: shipments_after(c, 0, 10))) == 1


async def test_the_same_order_twice_in_one_batch_is_one_shipment(database: Database) -> None:
    one, two = await prepare(database, command("o1", ("BOOK-1", 2)), command("o1", ("BOOK-1", 3)))
    assert isinstance(one, Prepared)
    assert isinstance(two, Prepared)
    assert (one.repeated, two.repeated) == (False, True)
    assert one.shipment_id == two.shipment_id
    assert await database.read(levels) == {"BOOK-1": (100, 2)}


async def test_lines_of_the_same_sku_are_summed_before_they_are_allocated(database: Database) -> None:
    wanted = command("o1", ("BOOK-1", 60), ("PEN-7", 1), ("BOOK-1", 41))
    assert (await prepare_one(database, wanted)).state == "backordered"
    assert (await prepare_one(database, wanted)).state == "backordered"
    assert await database.read(levels) == {"BOOK-1": (100, 0), "PEN-7": (100, 0)}


async def test_stock_is_allocated_as_a_whole_or_not_at_all(database: Database) -> None:
    outcomes = await prepare(
        database,
        command("o1", ("BOOK-1", 70)),
        command("o2", ("PEN-7", 1), ("BOOK-1", 31)),
        command("o3", ("BOOK-1", 30), ("PEN-7", 1)),
    )
    assert [o.state for o in outcomes if isinstance(o, Prepared)] == ["preparing", "backordered", "preparing"]
    assert await database.read(levels) == {"BOOK-1": (100, 100), "PEN-7": (100, 1)}


async def test_bad_items_fail_alone_and_their_neighbours_are_kept(database: Database) -> None:
    results = await prepare(
        database,
        command("good-1"),
        command("too-much", ("BOOK-1", 2**63)),
        command("good-2"),
        command("nul", ("BOOK\x00", 1)),
        command("good-1", ("PEN-7", 1)),
        command("good-3"),
    )
    kept = await database.read(states)
    assert {"good-1", "good-2", "good-3"} <= kept.keys()
    assert "too-much" not in kept
    assert [isinstance(result, Exception) for result in results[:3]] == [False, True, False]
    assert [result.repeated for result in results[4:] if isinstance(result, Prepared)] == [True, False]
    assert (await database.read(levels))["BOOK-1"] == (100, 3)
    if database.dialect == "postgresql":  # SQLite stores a NUL; the edge refuses it for both
        assert isinstance(results[3], Exception)
        assert "nul" not in kept


async def test_a_refused_order_is_not_stored_and_costs_its_neighbours_nothing(database: Database) -> None:
    refused = command("o2", ("BOOK-1", 1), ("REFUSE-ME", 1))
    for _ in range(2):
        results = await prepare(database, command("o1"), refused, command("o3"), rules=DEV_RULES)
        assert [type(result) for result in results] == [Prepared, SkuRefusedError, Prepared]
        assert "REFUSE-ME" in str(results[1])
    assert (await database.read(states)).keys() == {"o1", "o3"}
    afresh = await prepare_one(database, command("o2"), DEV_RULES)
    assert (afresh.repeated, afresh.state) == (False, "preparing")
    assert (await prepare_one(database, refused, DEV_RULES)).repeated


async def test_the_development_skus_are_ordinary_ones_otherwise(database: Database) -> None:
    outcomes = await prepare(database, command("o1", ("REFUSE-ME", 1)), command("o2", ("BACKORDER-ME", 1)))
    assert [o.state for o in outcomes if isinstance(o, Prepared)] == ["preparing", "preparing"]
    # Even where the SKU was stocked before, it is out of stock for those who want to see a backorder.
    assert (await prepare_one(database, command("o3", ("BACKORDER-ME", 1)), DEV_RULES)).state == "backordered"
    _, filled = await set_on_hand(database, "BACKORDER-ME", 100, RULES)
    assert filled == 1


async def test_a_shipment_advances_state_by_state_and_repeats_change_nothing(database: Database) -> None:
    await prepare_one(database, command("o1", ("BOOK-1", 2), ("BOOK-1", 3)))
    for to in ("packed", "shipped", "delivered"):
        once = await database.write(partial(advance_shipment, order_id="o1", to=to, rules=RULES))
        again = await database.write(partial(advance_shipment, order_id="o1", to=to, rules=RULES))
        assert once.state == to
        assert tuple(once) == tuple(again)
    assert await database.read(levels) == {"BOOK-1": (95, 0)}
    assert (await prepare_one(database, command("o1"))).state == "delivered"


@pytest.mark.parametrize(
    ("reached", "to"),
    [
        ([], "shipped"),
        ([], "delivered"),
        (["packed"], "delivered"),
        (["packed", "shipped"], "packed"),
        (["packed", "shipped", "delivered"], "shipped"),
    ],
)
async def test_a_skipped_or_backward_state_is_refused(
    database: Database, reached: list[str], to: str
) -> None:
    await prepare_one(database, command("o1"))
    for state in reached:
        await database.write(partial(advance_shipment, order_id="o1", to=state, rules=RULES))
    before = tuple(await database.read(lambda c: read_shipment(c, "o1")))
    with pytest.raises(ShipmentStateError):
        await database.write(lambda c: advance_shipment(c, "o1", to, RULES))
    assert tuple(await database.read(lambda c: read_shipment(c, "o1"))) == before


async def test_a_backordered_shipment_cannot_be_advanced(database: Database) -> None:
    await prepare_one(database, command("o1", ("BOOK-1", 101)))
    for to in ("packed", "shipped", "delivered"):
        with pytest.raises(ShipmentStateError, match="backordered"):
            await database.write(partial(advance_shipment, order_id="o1", to=to, rules=RULES))


async def test_an_unknown_order_has_no_shipment_to_read_or_advance(database: Database) -> None:
    with pytest.raises(ShipmentNotFoundError):
        await database.read(lambda c: read_shipment(c, "o1"))
    with pytest.raises(ShipmentNotFoundError):
        await database.write(lambda c: advance_shipment(c, "o1", "packed", RULES))


class PowerCutError(BaseException):
    """Stands for SIGKILL."""


async def test_nothing_is_kept_of_a_batch_that_dies_before_its_commit(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(pid: int, signal: int) -> None:
        raise PowerCutError

    armed = tmp_path / "crash"
    armed.write_text("warehouse.before-commit")
    monkeypatch.setattr(crashpoints, "_armed_by", armed)
    monkeypatch.setattr("os.kill", die)
    with pytest.raises(PowerCutError):
        await prepare(database, command("o1"), command("o2"))
    assert await database.read(states) == {}
    assert not (await prepare_one(database, command("o1"))).repeated
