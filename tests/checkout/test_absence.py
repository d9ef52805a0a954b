"""A participant who is away for an hour, by a clock of the test's own: its part waits, and no other does."""

from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from tests.checkout.dancers import ORDERS
from tests.checkout.dancing import another_pass, emitted, placed_now
from tests.checkout.world import World, eventually

AWAY = "warehouse"
COUNT = 3


class Clock(datetime):
    """Tells the time as it will be after `ahead`."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + cls.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """The clock by which checkout tells how long an event has waited."""
    monkeypatch.setattr(Clock, "ahead", timedelta())
    monkeypatch.setattr("checkout.broker.datetime", Clock)
    return Clock


async def check_waiting(world: World, order_id: str, since: str) -> None:
    """The order waits for the one who is away, since then, and for nobody else."""
    seen = await world.read(order_id)
    assert seen["status"] == "in_progress"
    waiting = seen["steps"].pop(AWAY)
    assert (waiting["status"], waiting["last_error"], waiting["since"]) == ("pending", "no-outcome", since)
    assert {step["status"] for step in seen["steps"].values()} == {"succeeded"}


async def test_who_is_away_for_an_hour_is_waited_for_and_hears_of_each_order_once_more_after_it(
    dance: World, clock: type[Clock]
) -> None:
    await dance.dancers[AWAY].stop()
    since = {}
    for _ in range(COUNT):
        order_id = await placed_now(dance)
        await another_pass(dance)
        seen = await dance.until_error(order_id, AWAY, "no-outcome")
        since[order_id] = seen["steps"][AWAY]["since"]
        for name in dance.dancers.keys() - {AWAY}:
            await dance.until_step(order_id, name, "succeeded")

    for minutes, times in ((59, 1), (61, 2), (119, 2), (123, 3)):
        clock.ahead = timedelta(minutes=minutes)
        for _ in range(3):
            await another_pass(dance)
        for order_id in since:
            await eventually(lambda order_id=order_id, times=times: len(emitted(dance, order_id)) >= times)
            await check_waiting(dance, order_id, since[order_id])
        assert len(dance.broker.published(ORDERS)) == times * COUNT, minutes

    dance.dancers[AWAY].start()
    for order_id in since:
        await dance.until(order_id, "completed")
    assert set(dance.dancers[AWAY].effects) == set(since)
    assert len(dance.broker.published(ORDERS)) == 3 * COUNT
