"""Listening goes on whatever happens, and of each stretch of deafness its start and its end are told once."""

import asyncio
import logging
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from servicekit.hearing import hearing_gauge, listen
from servicekit.link import BusUnavailableError, RefusedError

AWAY = BusUnavailableError("there is no connection")
DENIED = RefusedError({"description": "not for you"})
BROKEN = ValueError("a mistake of ours")
FINE = None


async def heard(*tries: Exception | None) -> Sequence[float | None]:
    """Listen through these tries; what the gauge showed at the start of each, and after the last."""
    registry, seen, end = CollectorRegistry(), list[float | None](), asyncio.Event()

    async def step() -> None:
        seen.append(registry.get_sample_value("hearing"))
        if len(seen) > len(tries):
            end.set()
            await asyncio.Event().wait()
        if (trouble := tries[len(seen) - 1]) is not None:
            raise trouble

    task = asyncio.create_task(listen(step, 0, hearing_gauge(registry)))
    async with asyncio.timeout(5):
        await end.wait()
    task.cancel()
    return seen


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    assert {record.levelno for record in caplog.records} <= {logging.WARNING, logging.ERROR}
    return [(record.message, vars(record).get("error")) for record in caplog.records]


async def test_the_gauge_says_how_the_last_try_ended() -> None:
    assert await heard(AWAY, FINE, FINE, DENIED, BROKEN, FINE) == [0, 0, 1, 1, 0, 0, 1]


async def test_one_failed_try_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    await heard(AWAY, FINE, AWAY, FINE)
    assert told(caplog) == []


async def test_going_deaf_is_told_once_in_the_brokers_words_and_so_is_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await heard(FINE, *[AWAY] * 50, FINE, FINE, *[DENIED] * 50)
    assert told(caplog) == [
        ("nothing is heard", "there is no connection"),
        ("heard again", None),
        ("nothing is heard", "not for you"),
    ]


async def test_each_kind_of_trouble_is_told_once_while_nothing_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await heard(*[AWAY, DENIED] * 20, FINE)
    assert told(caplog) == [
        ("nothing is heard", "not for you"),
        ("nothing is heard", "there is no connection"),
        ("heard again", None),
    ]


async def test_an_error_of_our_own_is_told_at_once_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await heard(*[BROKEN] * 20, FINE)
    assert told(caplog) == [("hearing broke off", None), ("heard again", None)]
    assert caplog.records[0].exc_info is not None
