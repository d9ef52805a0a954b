"""The recovery bench: what a restart comes to, stubs that remember, and one small run on real processes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lab.bench.children import BenchError
from lab.bench.recovery import first_life, reckon
from lab.bench.remembering import Remembering
from lab.bench.stored import Stored, count_unfinished, read_stored
from lab.bench.wire import Request
from tests.support.system import ROOT

ACCEPTED = {"a": True, "b": False, "c": True}
STORED = {"a": Stored("completed", 105.0), "b": Stored("completed", 107.0), "c": Stored("completed", 106.0)}
TOLD = {
    "email": {"a": 1, "b": 1, "c": 1},
    "warehouse": {"a": 1, "b": 3, "c": 1},
    "rewards": {"a": 1, "c": 2},
}


def test_a_recovery_is_timed_from_the_start_and_from_readiness_to_the_last_order() -> None:
    found = reckon(ACCEPTED, STORED, TOLD, started_at=100.0, ready_at=104.0)
    assert (found.orders, found.ready_s, found.from_start_s, found.from_ready_s) == (3, 4.0, 7.0, 3.0)
    assert found.rate == pytest.approx(1.5)
    assert found.repeats == {"email": 0, "warehouse": 2, "rewards": 1}
    assert found.problems == []


def test_orders_that_are_completed_before_it_is_ready_leave_nothing_to_wait_for() -> None:
    assert reckon(ACCEPTED, STORED, TOLD, started_at=100.0, ready_at=110.0).from_ready_s == 0.0


@pytest.mark.parametrize(
    ("stored", "told", "problem"),
    [
        ({**STORED, "a": Stored("in_progress", None)}, TOLD, "1 orders are not completed"),
        ({"a": STORED["a"], "b": STORED["b"]}, TOLD, "1 orders are lost"),
        ({**STORED, "d": Stored("completed", 106.0)}, TOLD, "1 orders are unexpected"),
        (STORED, {**TOLD, "email": {"a": 2, "b": 1}}, "email was never told of 1 orders"),
        (
            STORED,
            {**TOLD, "rewards": {"a": 1, "b": 1, "c": 1}},
            "rewards was told of 1 orders that it is owed",
        ),
        (STORED, {"email": TOLD["email"], "rewards": TOLD["rewards"]}, "warehouse was never told of 3"),
    ],
)
def test_a_recovery_that_leaves_anything_out_has_a_problem(
    stored: dict[str, Stored], told: dict[str, dict[str, int]], problem: str
) -> None:
    [found] = reckon(ACCEPTED, stored, told, started_at=100.0, ready_at=104.0).problems
    assert found.startswith(problem)


def test_a_first_life_takes_as_many_orders_as_are_asked_for() -> None:
    assert first_life(10_000)["CHECKOUT_MAX_FIRST_PASSES"] == "10000"


def post(path: bytes, body: object) -> Request:
    return Request(b"POST", path, json.dumps(body).encode())


def test_a_remembering_stub_knows_how_often_it_was_told_of_each_order() -> None:
    stub = Remembering()
    commands = [{"order_id": each, "total_minor": 1999} for each in ("a", "b")]
    assert b"201 Created" in stub.answer(post(b"/emails", commands[0]))
    assert b"200 OK" in stub.answer(post(b"/emails/batch", {"items": commands}))
    assert b"201 Created" in stub.answer(post(b"/balances", commands[1]))
    assert stub.told == {"email": {"a": 2, "b": 1}, "warehouse": {}, "rewards": {"b": 1}}


@pytest.mark.parametrize("body", [[], {}, {"items": 5}, {"items": [{}]}, "text"])
def test_a_remembering_stub_refuses_what_names_no_order(body: object) -> None:
    stub = Remembering()
    for path in (b"/shipments", b"/shipments/batch"):
        assert b"422" in stub.answer(post(path, body)).splitlines()[0]
    assert stub.told["warehouse"] == {}


def test_a_conductor_s_orders_are_read_from_outside_and_never_written(tmp_path: Path) -> None:
    path = tmp_path / "checkout.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE orders (order_id TEXT, status TEXT, completed_at BIGINT)")
        made.execute("INSERT INTO orders VALUES ('a', 'completed', 1500000), ('b', 'in_progress', NULL)")
    assert count_unfinished(path) == 1
    assert read_stored(path) == {"a": Stored("completed", 1.5), "b": Stored("in_progress", None)}
    with pytest.raises(BenchError, match="none"):
        read_stored(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.e2e
def test_a_killed_conductor_completes_all_that_it_had_accepted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "bench", "conductor", "--recovery", "--json", "--quick"]
    where = ["--orders", "200", "--folder", str(tmp_path / "bench")]
    done = subprocess.run(
        [*command, *where], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    [recovery] = told["recoveries"]
    assert (told["passed"], recovery["orders"], recovery["problems"]) == (True, 200, [])
    assert recovery["ready_s"] > 0
    assert 0 <= recovery["from_ready_s"] < recovery["from_start_s"] < 60
    assert recovery["rate"] > 0
    assert list((tmp_path / "bench").iterdir()) == []
