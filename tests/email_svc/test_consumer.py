"""The e-mail service hears of orders: each is confirmed once, however it came and however often."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from email_svc import confirmations
from email_svc.consumer import OrderCreated, participant
from email_svc.settings import Settings
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant
from tests.email_svc.conftest import CONDUCTOR, Service
from tests.support.hearing import GIVEN, hear, hear_a_bad_one, order_created

Part = Callable[[Bus], Participant[OrderCreated]]


def part_on(
    database: Database, woken: list[bool] | None = None, smtp_url: str = "smtp://127.0.0.1:1"
) -> Part:
    """The service's part on this database; `woken` notes each time that the deliverer is told."""
    settings = Settings(
        **GIVEN,
        smtp_url=smtp_url,
    )
    notes = [] if woken is None else woken
    return lambda bus: participant(bus, database, settings, CollectorRegistry(), lambda: notes.append(True))


async def recorded(database: Database) -> dict[str, tuple[str, str]]:
    """Recipient and delivery of every confirmation, by order."""

    def read(connection: Connection) -> dict[str, tuple[str, str]]:
        rows = confirmations.confirmations_after(connection, 0, 100)
        assert len({row.order_id for row in rows}) == len(rows)
        return {row.order_id: (row.recipient, row.delivery) for row in rows}

    return await database.read(read)


async def test_an_order_heard_twice_and_out_of_order_is_confirmed_once(database: Database) -> None:
    part = part_on(database)
    a, b, c = (order_created(each) for each in "abc")
    first = await hear(part, b, a, a)
    again = await hear(part, a, c, b)  # days later, by another process
    assert await recorded(database) == dict.fromkeys("abc", ("ada@example.com", "queued"))
    assert first.statuses() | again.statuses() == dict.fromkeys("abc", "succeeded")
    assert again.data()["a"] == first.data()["a"]
    assert again.dead_letters == []


async def test_an_order_both_told_and_heard_is_confirmed_once(sqlite: Database, service: Service) -> None:
    a, b = order_created("a"), order_created("b")
    commands = [orjson.loads(event)["data"] for event in (a, b)]
    first = await service.client.post("/emails", json=commands[0], headers=CONDUCTOR)
    told = await hear(part_on(sqlite), a, b)
    last = await service.client.post("/emails", json=commands[1], headers=CONDUCTOR)
    assert (first.status_code, last.status_code) == (201, 200)
    assert told.statuses() == dict.fromkeys("ab", "succeeded")
    assert set(await recorded(sqlite)) == {"a", "b"}


@pytest.mark.parametrize(
    "changes",
    [
        {"customer": {"name": "Ada", "email": "a@example.com, b@example.com", "rewards_member": True}},
        {"currency": "pounds"},
        {"total_minor": 2**63},
        {"lines": []},
        {"ship_to": {"name": "A\0da", "line1": "x", "city": "y", "country": "GB"}},
    ],
)
async def test_what_cannot_be_confirmed_fails_alone(database: Database, changes: dict[str, Any]) -> None:
    await hear_a_bad_one(part_on(database), order_created("bad", **changes))
    assert set(await recorded(database)) == {"a", "b"}


async def test_what_is_new_wakes_the_deliverer(sqlite: Database) -> None:
    woken: list[bool] = []
    await hear(part_on(sqlite, woken), order_created("a"))
    assert woken


async def test_without_a_mail_server_nothing_is_ever_due(sqlite: Database) -> None:
    await hear(part_on(sqlite, smtp_url="null:"), order_created("a"))
    assert await sqlite.read(confirmations.undelivered) == (0, 0.0)
    assert (await recorded(sqlite))["a"][1] == "queued"
