"""Simulated power cuts of the accept path: an order that was answered 2xx is on disk, wherever the cut comes.

The real service runs under a recorder of its writes and fsyncs; the files are rebuilt as a cut would have
left them, opened by SQLite, and must hold every order that was answered before. The same with SQLite's
`synchronous=NORMAL` must lose orders: a simulation that cannot see that loss would prove nothing.
"""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.powercut.disk import Disk, Kind
from tests.support.powercut.recording import Recording, compile_recorder, record_accepts, why_not
from tests.support.system import ROOT

ORDERS = 300
CUTS = 150
PAGES_OF_A_CHECKPOINT = 3

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorder, compiled."""
    return compile_recorder(tmp_path_factory.mktemp("recorder"))


def test_no_order_that_was_answered_is_lost_by_a_power_cut(tmp_path: Path, recorder: Path) -> None:
    recording = record_accepts(tmp_path, recorder, ROOT, ORDERS)
    assert len(recording.acked) == ORDERS
    written_back = [
        r for r in recording.records if r.kind is Kind.WRITE and r.path == str(recording.database)
    ]
    assert len(written_back) >= PAGES_OF_A_CHECKPOINT, "no checkpoint was recorded: place more orders"
    for seed in (None, 1, 2):
        lost = [len(missing) for missing in _missing_after_cuts(recording, tmp_path / "rebuilt", seed)]
        assert len(lost) >= 100
        assert sum(lost) == 0, f"seed {seed}: {sum(1 for n in lost if n)} of {len(lost)} cuts lost orders"


def test_the_simulation_sees_what_a_lesser_synchronous_loses(tmp_path: Path, recorder: Path) -> None:
    sources = tmp_path / "sources"
    for package in ("checkout", "servicekit"):
        shutil.copytree(ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    module = sources / "servicekit" / "db.py"
    weakened = module.read_text().replace("PRAGMA synchronous={sync}", "PRAGMA synchronous=NORMAL")
    assert weakened != module.read_text()
    module.write_text(weakened)
    recording = record_accepts(tmp_path, recorder, sources, ORDERS)
    assert any(_missing_after_cuts(recording, tmp_path / "rebuilt", None))


def _missing_after_cuts(recording: Recording, folder: Path, seed: int | None) -> Iterator[set[str]]:
    """For each cut, the orders that were answered before it and are not in the rebuilt database.

    Without a seed nothing unsynced survives, and the cuts come just before a sync completes: it is then that
    the most has been promised for what is on disk. With a seed anything unsynced may survive, at any moment.
    """
    chance = random.Random(seed)
    records = recording.records
    moments = [
        number for number, record in enumerate(records) if seed is not None or record.kind is Kind.SYNC
    ]
    cuts = set(moments if len(moments) <= CUTS else chance.sample(moments, CUTS))
    disk = Disk(recording.before)
    for number, record in enumerate(records):
        if number in cuts:
            promised = {order_id for order_id, ns in recording.acked.items() if ns < record.stamp_ns}
            files = disk.cut(None if seed is None else chance)
            yield promised - _orders_in(files, folder, recording.database)
        disk.apply(record)
    yield set(recording.acked) - _orders_in(disk.cut(), folder, recording.database)


def _orders_in(files: dict[str, bytes], folder: Path, database: Path) -> set[str]:
    """The orders that SQLite finds in these files; fails if it finds them broken."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    with closing(sqlite3.connect(folder / database.name)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return {order_id for (order_id,) in connection.execute("SELECT order_id FROM orders")}
