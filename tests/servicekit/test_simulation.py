"""What a service waits for: its laws, its share of errors, its capacity, and what a bad setting is told."""

import asyncio
import statistics
from collections.abc import Callable
from random import Random
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from servicekit.batching import Batcher
from servicekit.simulation import (
    MAX_IN_HAND,
    MAX_TIME_S,
    ServiceTime,
    SimulatedTroubleError,
    Simulation,
    parse_share,
    parse_time,
)
from tests.checkout.world import settings_for as checkout_settings_for
from tests.servicekit.conftest import client_of
from tests.servicekit.conftest import create_app as create_kettle
from tests.servicekit.kettle import KettleSettings, settings_for

DRAWS = 20_000


class Time:
    """A clock that goes on only when somebody sleeps, and what each sleeper slept."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def served(simulation: Simulation, count: int) -> int:
    """How many of so many tries failed."""
    failed = 0
    for _ in range(count):
        try:
            await simulation.serve()
        except SimulatedTroubleError:
            failed += 1
    return failed


@pytest.mark.parametrize(
    ("text", "law", "middle_s"),
    [
        ("lognormal:80ms", "lognormal", 0.08),
        ("constant:10ms", "constant", 0.01),
        ("exponential:5ms", "exponential", 0.005),
        (" exponential:0.5ms ", "exponential", 0.0005),
        ("constant:60s", "constant", 60.0),
        ("constant:0s", "constant", 0.0),
    ],
)
def test_a_time_is_a_law_and_its_middle(text: str, law: str, middle_s: float) -> None:
    assert parse_time(text) == ServiceTime(law, pytest.approx(middle_s))


def test_the_value_is_the_median_of_a_lognormal_law_and_the_mean_of_the_others() -> None:
    drawn = {
        law: [ServiceTime(law, 0.08).draw_s(random) for _ in range(DRAWS)]
        for law, random in (("lognormal", Random(1)), ("exponential", Random(2)), ("constant", Random(3)))
    }
    assert statistics.median(drawn["lognormal"]) == pytest.approx(0.08, rel=0.02)
    assert statistics.mean(drawn["exponential"]) == pytest.approx(0.08, rel=0.03)
    assert set(drawn["constant"]) == {0.08}
    hundredths = statistics.quantiles(drawn["lognormal"], n=100)
    assert hundredths[98] / 0.08 == pytest.approx(3.2, rel=0.05)
    assert hundredths[94] / 0.08 == pytest.approx(2.3, rel=0.05)


def test_no_draw_is_longer_than_the_longest_time() -> None:
    random = Random(4)
    assert max(ServiceTime("exponential", 60.0).draw_s(random) for _ in range(1_000)) == MAX_TIME_S


async def test_the_same_name_draws_the_same_again_and_another_name_something_else() -> None:
    slept: dict[str, list[float]] = {}
    for turn, name in (("first", "EMAIL_"), ("again", "EMAIL_"), ("other", "REWARDS_")):
        time = Time()
        simulation = Simulation(name, service_time=parse_time("lognormal:80ms"), sleep=time.sleep)
        await served(simulation, 20)
        slept[turn] = time.slept
    assert slept["first"] == slept["again"] != slept["other"]


async def test_errors_are_that_share_of_the_tries_and_change_no_time() -> None:
    times = Time(), Time()
    law = parse_time("lognormal:80ms")
    failing = Simulation("KETTLE_", service_time=law, error_share=parse_share("1%"), sleep=times[0].sleep)
    assert await served(failing, DRAWS) == pytest.approx(DRAWS / 100, rel=0.2)
    await served(Simulation("KETTLE_", service_time=law, sleep=times[1].sleep), DRAWS)
    assert times[0].slept == times[1].slept
    always = Simulation("KETTLE_", error_share=parse_share("100%"), sleep=Time().sleep)
    assert await served(always, 50) == 50
    never = Simulation("KETTLE_", error_share=parse_share("0%"), sleep=Time().sleep)
    assert await served(never, 50) == 0


async def test_capacity_serves_one_after_the_other_and_gives_no_turn_in_advance() -> None:
    time = Time()
    simulation = Simulation("KETTLE_", capacity_per_s=100, clock=time.clock, sleep=time.sleep)
    await served(simulation, 3)
    time.now += 0.015  # one is served by now, and half of the second
    await served(simulation, 1)
    time.now += 60  # idle: nothing is saved up meanwhile
    await served(simulation, 2)
    assert time.slept == pytest.approx([0.01, 0.02, 0.03, 0.025, 0.01, 0.02])


async def test_a_time_begins_when_the_turn_has_come() -> None:
    time = Time()
    simulation = Simulation(
        "KETTLE_",
        service_time=parse_time("constant:5ms"),
        capacity_per_s=100,
        clock=time.clock,
        sleep=time.sleep,
    )
    await served(simulation, 2)
    assert time.slept == pytest.approx([0.015, 0.025])


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("simulate_time", "80ms", "lognormal:80ms"),
        ("simulate_time", "normal:80ms", "lognormal:80ms"),
        ("simulate_time", "constant:-1ms", "lognormal:80ms"),
        ("simulate_time", "constant:1", "lognormal:80ms"),
        ("simulate_time", "constant:61s", "at most 60s"),
        ("simulate_errors", "1", "percentage"),
        ("simulate_errors", "101%", "percentage"),
        ("simulate_errors", "-1%", "percentage"),
        ("simulate_capacity", "0", "greater than 0"),
        ("simulate_capacity", "many", "number"),
        ("database_sync", "normal", "'full' or 'off'"),
    ],
)
def test_a_bad_setting_says_what_a_good_one_is(
    name: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key, good in (("DATABASE_URL", "sqlite:///x"), ("OPERATOR_TOKEN", "x" * 16), ("PORT", "1")):
        monkeypatch.setenv(f"KETTLE_{key}", good)
    monkeypatch.setenv("KETTLE_NATS_URL", "nats://127.0.0.1:1")
    monkeypatch.setenv(f"KETTLE_{name.upper()}", value)
    with pytest.raises(SystemExit):
        KettleSettings.load()
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"KETTLE_{name.upper()}: ")
    assert told in line


def test_without_sync_is_for_sqlite_only() -> None:
    assert settings_for("nats://127.0.0.1:1", database_sync="off").database_sync == "off"
    with pytest.raises(ValueError, match="DATABASE_SYNC=off is for SQLite only"):
        settings_for("nats://127.0.0.1:1", database_sync="off", database_url="postgresql+psycopg://x/y")


def test_what_is_told_and_what_is_heard_share_one_simulation_and_without_a_setting_there_is_none() -> None:
    assert settings_for("nats://127.0.0.1:1").simulated_wait is None
    settings = settings_for("nats://127.0.0.1:1", simulate_capacity=100)
    assert settings.simulated_wait is not None
    assert settings.simulated_wait is settings.simulated_wait


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, []),
        ({"database_sync": "full"}, []),
        ({"database_sync": "off"}, ["KETTLE_DATABASE_SYNC"]),
        (
            {"simulate_time": "constant:1ms", "simulate_errors": "0%", "simulate_capacity": 5},
            ["KETTLE_SIMULATE_TIME", "KETTLE_SIMULATE_ERRORS", "KETTLE_SIMULATE_CAPACITY"],
        ),
    ],
)
def test_the_settings_for_measuring_only_are_known_by_their_variables(
    given: dict[str, Any], names: list[str]
) -> None:
    assert settings_for("nats://127.0.0.1:1", **given).set_for_measuring == names


def test_checkout_s_pool_is_one_of_them_and_as_many_events_are_in_hand_as_calls_in_flight() -> None:
    settings = checkout_settings_for("sqlite:///x.db", http_pool="httpx")
    assert settings.set_for_measuring == ["CHECKOUT_HTTP_POOL"]
    assert settings.max_in_flight == MAX_IN_HAND


def kettle_with(before: Callable[[], Any], poured: list[int]) -> FastAPI:
    """A kettle that pours what it is told, in groups."""

    async def pour(cups: Any) -> list[int]:
        poured.extend(cups)
        return [len(poured)] * len(cups)

    app = create_kettle()
    batcher: Batcher[int, int] = Batcher(pour, max_items=10, max_queue=10, before=before)

    @app.post("/pours")
    async def fill(cups: int) -> int:
        return await batcher.submit(cups)

    return app


async def test_a_command_that_meets_a_simulated_error_is_answered_503_and_has_no_effect() -> None:
    poured: list[int] = []
    simulation = Simulation("KETTLE_", error_share=1.0, sleep=Time().sleep)
    async with client_of(kettle_with(simulation.serve, poured)) as client:
        answer: httpx.Response = await client.post("/pours", params={"cups": 1})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"].endswith("/overloaded")
    assert answer.json()["detail"] == "It is a simulated error, for measuring only."
    assert poured == []


async def test_a_command_waits_for_its_own_time_before_it_joins_a_group_and_holds_nobody_up() -> None:
    poured: list[int] = []
    waits, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        if not waits.is_set():
            waits.set()
            await gate.wait()

    async with client_of(kettle_with(wait, poured)) as client, asyncio.timeout(10):
        slow = asyncio.create_task(client.post("/pours", params={"cups": 1}))
        await waits.wait()
        fast = await client.post("/pours", params={"cups": 2})
        assert (fast.status_code, poured) == (200, [2])
        gate.set()
        assert (await slow).status_code == 200
    assert poured == [2, 1]
