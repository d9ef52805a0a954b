"""A database locked for five minutes, by the pauses that a participant asks for, which pass at once."""

from typing import Any

import orjson
import pytest

from servicekit import db
from servicekit.db import Database
from tests.servicekit.kettle import settings_for, until
from tests.servicekit.test_participant import Party, create_tables, locked, wanted
from tests.support.fake_bus import FakeBroker, FakeBus

LOCKED_S = 300.0
LONGEST_PAUSE_S = 10.0  # as it is by default


def put_off_s(broker: FakeBroker) -> float:
    """For how long both events have been put off, the one that was for less."""
    return min(
        (
            durable.put_off_s.get(number, 0.0)
            for durable in broker.streams["TEAS"].durables.values()
            for number in (1, 2)
        ),
        default=0.0,
    )


async def test_five_minutes_of_a_locked_database_put_nothing_aside(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.01)
    broker = FakeBroker()
    broker.haste = 10_000
    bus: Any = FakeBus(broker)
    settings = settings_for("nats://127.0.0.1:1", event_retry_min_s=0.01, event_retry_max_s=LONGEST_PAUSE_S)
    async with Database(sqlite_url, timeout_s=0.05) as database:
        await database.write(create_tables)
        party = Party(bus, database, sqlite_url, settings)
        await party.declare()
        party.start()
        try:
            with locked(sqlite_url):
                await party.want(wanted("green"), wanted("coffee"))
                await until(lambda: put_off_s(broker) >= LOCKED_S, 60)
                assert broker.published("LETTERS") == []
            await party.settled()
        finally:
            await party.stop()
        assert await party.made() == ["green"]
    [durable] = broker.streams["TEAS"].durables.values()
    assert min(durable.tries.values()) > LOCKED_S / LONGEST_PAUSE_S
    outcomes = [orjson.loads(event) for event in broker.published("TOLD")]
    assert {each["subject"]: each["data"]["status"] for each in outcomes} == {
        "green": "succeeded",
        "coffee": "failed",
    }
    [letter] = [orjson.loads(event) for event in broker.published("LETTERS")]
    assert (letter["subject"], letter["data"]["errors"]) == ("coffee", 5)  # its own, after the lock
