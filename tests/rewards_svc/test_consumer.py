"""The rewards service hears of orders: a member's earns points once, another's none."""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from rewards_svc import points
from rewards_svc.consumer import OrderCreated, participant
from rewards_svc.settings import Settings
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant
from tests.rewards_svc.conftest import CONDUCTOR
from tests.support.hearing import GIVEN, hear, hear_a_bad_one, order_created

Part = Callable[[Bus], Participant[OrderCreated]]


def part_on(database: Database) -> Part:
    """The service's part on this database."""
    settings = Settings(
        **GIVEN,
    )
    return lambda bus: participant(bus, database, settings, CollectorRegistry())


async def ledger(database: Database) -> dict[str, int]:
    """The points of every entry, by order; the balances agree with them."""

    def read(connection: Connection) -> dict[str, int]:
        rows = points.entries_after(connection, 0, 100)
        entries = {row.order_id: row.points for row in rows}
        assert len(entries) == len(rows)
        for balance_id in {row.balance_id for row in rows}:
            balance = points.balance(connection, balance_id)
            assert balance is not None
            assert balance.points == sum(row.points for row in rows if row.balance_id == balance_id)
        return entries

    return await database.read(read)


async def test_an_order_heard_twice_and_out_of_order_earns_points_once(database: Database) -> None:
    part = part_on(database)
    a, b, c = (order_created(each, total_minor=100 * n) for n, each in enumerate("abc", 1))
    first = await hear(part, b, a, a)
    again = await hear(part, a, c, b)  # days later, by another process
    assert await ledger(database) == {"a": 1, "b": 2, "c": 3}
    assert first.statuses() | again.statuses() == dict.fromkeys("abc", "succeeded")
    assert again.data()["a"] == first.data()["a"]
    assert again.dead_letters == []


async def test_only_a_members_order_earns_points(database: Database) -> None:
    told = await hear(part_on(database), order_created("a"), order_created("b", member=False))
    assert await ledger(database) == {"a": 43}
    assert told.data()["a"]["result"]["points"] == 43
    assert told.data()["b"] == {
        "status": "skipped",
        "result": None,
        "reason": "the customer has not joined rewards",
        "attempts": 1,
    }


async def test_an_order_both_told_and_heard_earns_points_once(
    sqlite: Database, client: httpx.AsyncClient
) -> None:
    a, b = order_created("a"), order_created("b")
    commands = [orjson.loads(event)["data"] for event in (a, b)]
    first = await client.post("/balances", json=commands[0], headers=CONDUCTOR)
    told = await hear(part_on(sqlite), a, b)
    last = await client.post("/balances", json=commands[1], headers=CONDUCTOR)
    assert (first.status_code, last.status_code) == (201, 200)
    assert told.statuses() == dict.fromkeys("ab", "succeeded")
    assert await ledger(sqlite) == {"a": 43, "b": 43}


@pytest.mark.parametrize(
    "changes",
    [
        {"customer": {"email": "a@example.com, b@example.com", "rewards_member": True}},
        {"customer": {"email": "a@example.com"}},
        {"currency": "pounds"},
        {"total_minor": 2**63},
    ],
)
async def test_what_cannot_be_credited_fails_alone(database: Database, changes: dict[str, Any]) -> None:
    await hear_a_bad_one(part_on(database), order_created("bad", **changes))
    assert await ledger(database) == {"a": 43, "b": 43}
