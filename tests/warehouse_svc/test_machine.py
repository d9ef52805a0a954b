"""Random interleavings of preparing, advancing and restocking, on both engines, against a model."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import create_engine, text

from servicekit.db import Database
from servicekit.migrate import migrate
from tests.warehouse_svc import ledger
from tests.warehouse_svc.conftest import PACKAGE
from warehouse_svc.backorders import set_on_hand
from warehouse_svc.errors import ShipmentNotFoundError, ShipmentStateError, StockAllocatedError
from warehouse_svc.shipments import (
    BEFORE,
    Prepared,
    PrepareShipment,
    advance_shipment,
    needs_of,
    prepare_shipments,
)
from warehouse_svc.stock import StockRules

RULES = StockRules(initial_stock=6)
SKUS = st.sampled_from(["A", "B", "C"])
ORDERS = st.sampled_from([f"o{n}" for n in range(6)])
LINES = st.lists(st.tuples(SKUS, st.integers(1, 5)), min_size=1, max_size=3)
COMMANDS = st.builds(lambda order_id, lines: ledger.command(order_id, *lines), ORDERS, LINES)


class Warehouse(RuleBasedStateMachine):
    """Each rule is one transaction or more; the model keeps ids, needs, and what is on hand."""

    open_database: Callable[[], Database]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.database = type(self).open_database()
        self.ids: dict[str, str] = {}
        self.needs: dict[str, dict[str, int]] = {}
        self.on_hand = dict.fromkeys("ABC", RULES.initial_stock)

    def teardown(self) -> None:
        self.database.close()
        self.loop.close()

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @rule(commands=st.lists(COMMANDS, min_size=1, max_size=4))
    def prepare(self, commands: list[PrepareShipment]) -> None:
        results = self.run(self.database.batch(partial(prepare_shipments, rules=RULES), commands))
        for wanted, result in zip(commands, results, strict=True):
            assert isinstance(result, Prepared)
            assert result.repeated == (wanted.order_id in self.ids)
            assert self.ids.setdefault(wanted.order_id, result.shipment_id) == result.shipment_id
            self.needs.setdefault(wanted.order_id, needs_of(wanted.lines))

    @rule(order_id=ORDERS, to=st.sampled_from(["packed", "shipped", "delivered"]))
    def advance(self, order_id: str, to: str) -> None:
        before = self.run(self.database.read(ledger.states)).get(order_id)
        try:
            after = self.run(self.database.write(lambda c: advance_shipment(c, order_id, to, RULES))).state
        except ShipmentNotFoundError:
            assert order_id not in self.ids
        except ShipmentStateError:
            assert before not in (to, BEFORE[to])
        else:
            assert before in (to, BEFORE[to])
            assert after == to
            if to == "shipped" and before == "packed":
                for sku, quantity in self.needs[order_id].items():
                    self.on_hand[sku] -= quantity

    @rule(sku=SKUS, on_hand=st.integers(0, 12))
    def restock(self, sku: str, on_hand: int) -> None:
        _, allocated = self.run(self.database.read(ledger.levels)).get(sku, (0, 0))
        try:
            level, _ = self.run(set_on_hand(self.database, sku, on_hand, RULES))
        except StockAllocatedError:
            assert on_hand < allocated
        else:
            assert allocated <= on_hand
            assert level.on_hand == on_hand
            self.on_hand[sku] = on_hand

    @invariant()
    def the_tables_agree(self) -> None:
        self.run(self.database.read(ledger.check))

    @invariant()
    def nothing_but_restocking_and_shipping_changes_what_is_on_hand(self) -> None:
        for sku, (on_hand, _) in self.run(self.database.read(ledger.levels)).items():
            assert on_hand == self.on_hand[sku]

    @invariant()
    def every_order_has_one_shipment(self) -> None:
        assert self.run(self.database.read(ledger.states)).keys() == self.ids.keys()


def _check(open_database: Callable[[], Database], examples: int) -> None:
    machine = type("Warehouse", (Warehouse,), {"open_database": staticmethod(open_database)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_stock_is_never_negative_oversold_or_idle_on_sqlite(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    migrate(PACKAGE, f"sqlite:///{template}")

    def open_database() -> Database:
        copy = Path(tempfile.mkdtemp(dir=tmp_path)) / "copy.db"
        shutil.copyfile(template, copy)
        return Database(f"sqlite:///{copy}", timeout_s=5)

    _check(open_database, examples=60)


def test_stock_is_never_negative_oversold_or_idle_on_postgresql(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)

    def open_database() -> Database:
        engine = create_engine(postgres_url)
        with engine.begin() as connection:
            connection.execute(text("TRUNCATE stock, shipments, backorders"))
        engine.dispose()
        return Database(postgres_url, timeout_s=5)

    _check(open_database, examples=15)
