"""The growth bench: databases that are filled by SQL, ratios by size, and one small run on real processes."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from lab.bench.children import BenchError
from lab.bench.filling import fill, newest, take_back
from lab.bench.generator import Measurement
from lab.bench.growth import growth_curve, name_of
from lab.bench.growth_report import sentence
from tests.support.system import ROOT

TABLE = """
    CREATE TABLE orders (
        order_id TEXT PRIMARY KEY, caller TEXT NOT NULL, idempotency_key TEXT, fingerprint TEXT,
        details TEXT NOT NULL, accepted_at BIGINT NOT NULL, status TEXT NOT NULL, completed_at BIGINT
    );
    CREATE UNIQUE INDEX orders_by_key ON orders (caller, idempotency_key);
"""
FIRST_MS = 1_800_000_000_000


def order_id(ms: int) -> str:
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7abc-8def-0123456789ab"


def database(folder: Path, orders: int, status: str = "completed") -> Path:
    path = folder / "checkout.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.executescript(TABLE)
        made.executemany(
            "INSERT INTO orders VALUES (?, 'anonymous', ?, 'f', ?, ?, ?, ?)",
            [
                (order_id(ms), f"key-{ms}", f"d{ms - FIRST_MS}", ms * 1000, status, ms * 1000 + 5)
                for ms in range(FIRST_MS, FIRST_MS + orders)
            ],
        )
    return path


def rows(path: Path) -> list[tuple[str, str | None, str, int, int]]:
    columns = "order_id, idempotency_key, details, accepted_at, completed_at"
    with closing(sqlite3.connect(path)) as read:
        return read.execute(f"SELECT {columns} FROM orders ORDER BY order_id").fetchall()


def test_a_database_is_filled_to_the_size_that_is_asked_for(tmp_path: Path) -> None:
    path = database(tmp_path, 3)
    real = rows(path)
    fill(path, 100)
    found = rows(path)
    assert len(found) == len({row[0] for row in found}) == 100
    assert found[-3:] == real, "what is made sorts before what was there"
    made = found[:-3]
    assert {row[1] for row in made} == {None}
    assert {row[2] for row in made} == {"d0", "d1", "d2"}
    assert all(ended - accepted == 5 for _, _, _, accepted, ended in made)
    assert [row[3] for row in found] == sorted(row[3] for row in found), "ids and times rise together"


def test_a_database_with_more_orders_than_asked_for_keeps_the_oldest(tmp_path: Path) -> None:
    path = database(tmp_path, 9)
    oldest = rows(path)[:4]
    fill(path, 4)
    assert rows(path) == oldest


def test_a_filled_database_is_put_back_to_what_it_held(tmp_path: Path) -> None:
    path = database(tmp_path, 3)
    fill(path, 20)
    before, last = rows(path), newest(path)
    with closing(sqlite3.connect(path)) as served, served:
        served.execute(
            "INSERT INTO orders SELECT 'f' || order_id, caller, NULL, '', '', 1, 'x', 2 FROM orders"
        )
    take_back(path, last)
    assert rows(path) == before


@pytest.mark.parametrize(("orders", "status"), [(3, "in_progress"), (0, "completed")])
def test_only_completed_orders_are_multiplied(orders: int, status: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="completed"):
        fill(database(tmp_path, orders, status), 10)


def test_a_file_that_is_no_database_of_orders_is_refused(tmp_path: Path) -> None:
    for act in (lambda path: fill(path, 5), newest, lambda path: take_back(path, "x")):
        with pytest.raises(BenchError, match=r"other\.db"):
            act(tmp_path / "other.db")


def measured(size: int, rate: float) -> Measurement:
    return Measurement(name_of(size), 64, 10, 8, 0, {}, 10, 1.0, rate, {"p50": 1.0, "p99": 2.0}, {})


def test_the_curve_is_paired_by_round_against_the_smallest_size() -> None:
    rounds = [
        measured(size, drift * rate)
        for drift in (1.0, 2.0, 0.5)
        for size, rate in ((1000, 100), (5000, 95), (9000, 80))
    ]
    curve = growth_curve(rounds, (1000, 5000, 9000))
    assert [sentence(each, 1000) for each in curve] == [
        "throughput with 5,000 orders vs 1,000: 0.95 [0.95, 0.95] goal >= 0.9 reached",
        "throughput with 9,000 orders vs 1,000: 0.80 [0.80, 0.80] goal >= 0.9 missed",
    ]
    assert {each.ratio.confidence for each in curve} == {0.975}


@pytest.mark.e2e
def test_a_small_growth_run_fills_measures_and_balances(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "bench", "conductor", "--growth", "--json"]
    small = ["--sizes", "300,3000", "--quick", "--pairs", "2", "--seconds", "0.3"]
    where = ["--folder", str(tmp_path / "bench")]
    done = subprocess.run(
        [*command, *small, *where], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode in (0, 1), done.stderr  # so short a look may miss the goal
    told = json.loads(done.stdout)
    assert told["ledger"]["balances"], told["ledger"]["problems"]
    assert [row["size"] for row in told["rows"]] == [300, 3000]
    assert [(each["size"], each["ratio"]["pairs"]) for each in told["curve"]] == [(3000, 2)]
    assert told["passed"] is (told["curve"][0]["verdict"] == "reached") is (done.returncode == 0)
    assert set(told["ledger"]["stored"]) == {"templates", "duet-300", "duet-3000"}
    assert list((tmp_path / "bench").iterdir()) == []
