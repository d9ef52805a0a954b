"""Simulated power cuts of the accept path: an order that was answered 2xx is on disk, wherever the cut comes.

The real service runs under a recorder of its writes and fsyncs; the files are rebuilt as a cut would have
left them, opened by SQLite, and must hold every order that was answered before. The same with SQLite's
`synchronous=NORMAL` must lose orders: a simulation that cannot see that loss would prove nothing.
"""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from lab.bench.children import running
from tests.checkout.world import RESULTS, FakeService, open_world
from tests.support.powercut.disk import Disk, Kind
from tests.support.powercut.recording import Recording, compile_recorder, record_accepts, why_not
from tests.support.system import ROOT

ORDERS = 300
CUTS = 150
PAGES_OF_A_CHECKPOINT = 3
RESUMED = 5  # cuts after which checkout is started again

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


async def test_an_outcome_that_rode_and_was_lost_comes_to_the_same_again(
    tmp_path: Path, recorder: Path
) -> None:
    """Some orders that were answered as completed are not so on disk: taken up again, they change nothing."""
    async with _stubs(tmp_path) as services:
        recording = await asyncio.to_thread(
            record_accepts, tmp_path, recorder, ROOT, ORDERS, services=services
        )
    assert len(recording.completed) == ORDERS
    folder, unfinished = tmp_path / "rebuilt", 0
    for promised, files in _cuts(recording, None):
        statuses = _orders_in(files, folder, recording.database)
        assert promised <= set(statuses)
        shown = {order_id for order_id in recording.completed if order_id in promised}
        lost = {order_id for order_id in shown if statuses[order_id] != "completed"}
        if lost and unfinished < RESUMED:
            unfinished += 1
            await _finishes(folder / recording.database.name, statuses, shown)
    assert unfinished, "no cut came between an answer and its commit: the simulation does not see what rides"


async def _finishes(database: Path, statuses: Mapping[str, str], told: Collection[str]) -> None:
    """Checkout finishes what the cut has left; services that know the orders make no second effect."""
    services = {name: FakeService(name, effects=dict.fromkeys(told, 1)) for name in RESULTS}
    async with open_world(f"sqlite:///{database}", services=services) as world:
        for order_id in statuses:
            await world.until(order_id, "completed")
    for service in services.values():
        assert set(service.effects.values()) == {1}
        assert set(told) <= set(service.effects) <= set(statuses)


@asynccontextmanager
async def _stubs(folder: Path) -> AsyncIterator[dict[str, str]]:
    log = folder / "stub.log"
    async with running("stub services", "lab.bench.stub", env={}, log=log, talks=True) as stub:
        ports = await stub.ask(b"", 20)
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}


def _missing_after_cuts(recording: Recording, folder: Path, seed: int | None) -> Iterator[set[str]]:
    """For each cut, the orders that were answered before it and are not in the rebuilt database."""
    for promised, files in _cuts(recording, seed):
        yield promised - set(_orders_in(files, folder, recording.database))


def _cuts(recording: Recording, seed: int | None) -> Iterator[tuple[set[str], dict[str, bytes]]]:
    """For each cut, the orders that were answered before it, and what it has left of the files.

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
            yield promised, disk.cut(None if seed is None else chance)
        disk.apply(record)
    yield set(recording.acked), disk.cut()


def _orders_in(files: dict[str, bytes], folder: Path, database: Path) -> dict[str, str]:
    """The orders that SQLite finds in these files, with their status; fails if it finds them broken."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, content in files.items():
        (folder / Path(path).name).write_bytes(content)
    with closing(sqlite3.connect(folder / database.name)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        return dict(connection.execute("SELECT order_id, status FROM orders"))
