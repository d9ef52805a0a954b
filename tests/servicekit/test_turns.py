"""Turns at a service whose capacity is in a file: how it is read, what a change does to those who wait."""

import asyncio
import itertools
from pathlib import Path

import pytest

from servicekit.simulation import Simulation, parse_time
from servicekit.turns import LOOK_S, CapacityFile, Turns, read_capacity
from tests.servicekit.kettle import KettleSettings, settings_for


class Time:
    """A clock that somebody else winds; sleepers wake up in the order of their times."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._numbers = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, next(self._numbers), woken))
        await woken

    async def pass_until(self, until: float) -> None:
        """Let time pass, and whoever is due go on."""
        await self._settle()
        while self._sleepers and min(self._sleepers)[0] <= until:
            sleeper = min(self._sleepers)
            self._sleepers.remove(sleeper)
            self.now = max(self.now, sleeper[0])
            if not sleeper[2].done():
                sleeper[2].set_result(None)
            await self._settle()
        self.now = until

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def capacity(tmp_path: Path) -> Path:
    file = tmp_path / "capacity"
    file.write_text("10\n")
    return file


def write(file: Path, number: str) -> None:
    file.write_text(number)


def changing(file: Path, time: Time) -> Turns:
    return Turns(CapacityFile(file, time.clock), time.clock, time.sleep, look_s=LOOK_S)


async def serve(turns: Turns, time: Time, count: int, served_at: list[float]) -> list[asyncio.Task[None]]:
    """So many items that come now, and when each of them will have been served."""
    started = time.now

    async def one() -> None:
        await turns.wait(0.0)
        served_at.append(time.now - started)

    tasks = [asyncio.create_task(one()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_a_capacity_that_stays_serves_one_after_the_other(capacity: Path) -> None:
    time, served_at = Time(), list[float]()
    tasks = await serve(changing(capacity, time), time, 5, served_at)
    await time.pass_until(time.now + 10)
    await asyncio.gather(*tasks)
    assert served_at == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


async def test_whoever_waits_when_the_capacity_falls_waits_longer(capacity: Path) -> None:
    time, served_at = Time(), list[float]()
    tasks = await serve(changing(capacity, time), time, 5, served_at)
    write(capacity, "2")
    await time.pass_until(time.now + 10)
    await asyncio.gather(*tasks)
    # The change is noticed after a tenth of a second, in which one was served.
    assert served_at == pytest.approx([0.1, 0.6, 1.1, 1.6, 2.1])


async def test_whoever_waits_when_the_capacity_rises_waits_shorter(capacity: Path) -> None:
    time, served_at = Time(), list[float]()
    write(capacity, "1")
    tasks = await serve(changing(capacity, time), time, 11, served_at)
    await time.pass_until(time.now + 1.95)
    assert len(served_at) == 1
    write(capacity, "100")
    await time.pass_until(time.now + 1)
    await asyncio.gather(*tasks)
    assert max(served_at) < 2.3


async def test_nothing_is_saved_up_while_nobody_comes_at_a_higher_capacity(capacity: Path) -> None:
    time, served_at = Time(), list[float]()
    turns = changing(capacity, time)
    write(capacity, "1000")
    time.now += 60
    write(capacity, "10")
    tasks = await serve(turns, time, 2, served_at)
    await time.pass_until(time.now + 1)
    await asyncio.gather(*tasks)
    assert served_at == pytest.approx([0.1, 0.2])


async def test_a_caller_that_went_away_keeps_its_turn(capacity: Path) -> None:
    time, served_at = Time(), list[float]()
    first, second = await serve(changing(capacity, time), time, 2, served_at)
    first.cancel()
    await time.pass_until(time.now + 1)
    await second
    assert served_at == pytest.approx([0.2])


async def test_a_time_begins_when_the_turn_has_come_also_where_the_capacity_changes(capacity: Path) -> None:
    time = Time()
    write(capacity, "4")
    simulation = Simulation(
        "KETTLE_",
        service_time=parse_time("constant:1s"),
        capacity_per_s=capacity,
        clock=time.clock,
        sleep=time.sleep,
    )
    task = asyncio.create_task(simulation.serve())
    await time.pass_until(time.now + 1.24)
    assert not task.done()
    await time.pass_until(time.now + 0.02)
    assert task.done()


def test_a_number_is_read_again_after_a_while_and_not_before(capacity: Path) -> None:
    time = Time()
    reader = CapacityFile(capacity, time.clock)
    write(capacity, "20")
    time.now += LOOK_S / 2
    assert reader() == 10
    time.now += LOOK_S
    assert reader() == 20


@pytest.mark.parametrize(
    "content", [b"", b"many", b"0", b"-1", b"nan", b"inf", b"1000001", b"\xff\xfe", b"1 2"]
)
def test_what_is_no_capacity_is_refused_at_the_start_and_changes_nothing_later(
    content: bytes, capacity: Path
) -> None:
    time = Time()
    reader = CapacityFile(capacity, time.clock)
    capacity.write_bytes(content)
    with pytest.raises(ValueError, match=r"capacity|decode"):
        read_capacity(capacity)
    time.now += 1
    assert reader() == 10
    capacity.unlink()
    time.now += 1
    assert reader() == 10


@pytest.mark.parametrize(
    ("content", "told"),
    [("none", "must hold a number"), ("0", "must hold a number"), (None, "not point to a file")],
)
def test_a_bad_file_ends_the_service_at_its_start_with_what_a_good_one_is(
    content: str | None,
    told: str,
    capacity: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for key, good in (("DATABASE_URL", "sqlite:///x"), ("OPERATOR_TOKEN", "x" * 16), ("PORT", "1")):
        monkeypatch.setenv(f"KETTLE_{key}", good)
    monkeypatch.setenv("KETTLE_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv("KETTLE_SIMULATE_CAPACITY_FROM", str(capacity))
    capacity.unlink() if content is None else capacity.write_text(content)
    with pytest.raises(SystemExit):
        KettleSettings.load()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("KETTLE_SIMULATE_CAPACITY_FROM: ")
    assert told in line


def test_a_capacity_is_given_once_and_one_from_a_file_is_for_measuring_only(capacity: Path) -> None:
    settings = settings_for("nats://127.0.0.1:1", simulate_capacity_from=capacity)
    assert settings.set_for_measuring == ["KETTLE_SIMULATE_CAPACITY_FROM"]
    assert settings.simulated_wait is not None
    with pytest.raises(ValueError, match="give one of them"):
        settings_for("nats://127.0.0.1:1", simulate_capacity_from=capacity, simulate_capacity=5)
