"""Recording, claiming and settling, on both engines."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from email_svc.confirmations import (
    Confirmation,
    Settlement,
    claim_due,
    confirmations_after,
    make_all_due,
    record_confirmations,
    settle,
    undelivered,
)
from email_svc.confirmations import confirmation as stored
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.email_svc.conftest import PACKAGE, confirmation


@pytest.fixture
async def second(database_url: str, database: Database) -> AsyncIterator[Database]:
    """Another process's view of the database; on SQLite there is only ever one."""
    if database.dialect == "sqlite":
        yield database
        return
    async with Database(database_url, timeout_s=5) as second:
        yield second


async def record(database: Database, *commands: Confirmation) -> list[Any]:
    return list(await database.batch(record_confirmations, commands))


async def claim(database: Database, limit: int = 10, lease_s: float = 60) -> list[Any]:
    return await database.write(lambda c: claim_due(c, limit, lease_s))


async def row(database: Database, order_id: str = "o1") -> Any:
    return await database.read(lambda c: stored(c, order_id))


async def test_an_order_is_recorded_once_however_often_it_comes(database: Database) -> None:
    first = await record(database, confirmation())
    again = await record(database, confirmation(recipient="eve@example.com"), confirmation())
    assert [(r.repeated, r.delivery) for r in first + again] == [
        (False, "queued"),
        (True, "queued"),
        (True, "queued"),
    ]
    assert (await row(database)).recipient == "ada@example.com"
    assert len(await database.read(lambda c: confirmations_after(c, 0, 10))) == 1


async def test_the_same_order_twice_in_one_batch_is_one_confirmation(database: Database) -> None:
    one, two, other = await record(database, confirmation("o2"), confirmation("o2", name="B"), confirmation())
    assert [(r.order_id, r.repeated) for r in (one, two, other)] == [
        ("o2", False),
        ("o2", True),
        ("o1", False),
    ]


async def test_two_processes_that_record_the_same_orders_at_once_record_each_once(
    database: Database, second: Database
) -> None:
    orders = [confirmation(f"o{n}") for n in range(20)]
    results = await asyncio.gather(*[record(d, *orders) for d in (database, second) * 2])
    fresh = [r.order_id for batch in results for r in batch if not r.repeated]
    assert sorted(fresh) == sorted(order.order_id for order in orders)


async def test_a_repeated_command_hears_how_the_delivery_stands(database: Database) -> None:
    await record(database, confirmation())
    await claim(database)
    await database.batch(settle, [Settlement("o1", 1, "bounced", "550 no such user")])
    assert [r.delivery for r in await record(database, confirmation())] == ["bounced"]


async def test_a_bad_item_fails_alone_and_its_neighbours_are_kept(database: Database) -> None:
    await record(database, confirmation("known"))
    results = await record(
        database,
        confirmation("good-1"),
        confirmation("too-much", total_minor=2**63),
        confirmation("known"),
        confirmation("nul", recipient="a\x00@example.com"),
        confirmation("good-2"),
    )
    kept = {r.order_id for r in await database.read(lambda c: confirmations_after(c, 0, 10))}
    assert {"known", "good-1", "good-2"} <= kept
    assert "too-much" not in kept
    assert isinstance(results[1], Exception)
    assert [results[n].repeated for n in (0, 2, 4)] == [False, True, False]
    if database.dialect == "postgresql":  # SQLite stores a NUL; the edge refuses it for both
        assert isinstance(results[3], Exception)


async def test_what_is_recorded_comes_back_whole_when_it_is_claimed(database: Database) -> None:
    order = confirmation(name="Ada “Łøvelace” 👩‍👩‍👧", total_minor=10**14)
    await record(database, order)
    (claimed,) = await claim(database)
    assert claimed.confirmation == order
    assert claimed.attempt == 1
    assert -1 < claimed.age_s < 60


async def test_a_claim_holds_until_its_lease_ends_and_then_passes_on(
    database: Database, second: Database
) -> None:
    await record(database, confirmation())
    assert len(await claim(database)) == 1
    assert await claim(second) == []
    await database.write(make_all_due)  # as if the lease had run out
    (taken_over,) = await claim(second)
    assert taken_over.attempt == 2


async def test_two_who_claim_at_once_share_what_is_due(database: Database, second: Database) -> None:
    await record(database, *[confirmation(f"o{n}") for n in range(40)])
    claims = await asyncio.gather(*[claim(d, limit=5) for d in (database, second) * 4])
    orders = [c.confirmation.order_id for batch in claims for c in batch]
    assert len(orders) == len(set(orders)) == 40


async def test_a_row_that_another_transaction_holds_is_skipped_not_waited_for(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    loop = asyncio.get_running_loop()
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as two:
        await record(one, confirmation("o1"), confirmation("o2"))

        def claim_while_another_does(connection: Connection) -> list[Any]:
            mine = claim_due(connection, 1, 60)
            other = asyncio.run_coroutine_threadsafe(claim(two, 2), loop).result(timeout=10)
            return mine + other

        claims = await one.write(claim_while_another_does)
    assert sorted(c.confirmation.order_id for c in claims) == ["o1", "o2"]


@pytest.mark.parametrize(
    ("settlement", "expected"),
    [
        (Settlement("o1", 1, "sent"), ("sent", None)),
        (Settlement("o1", 1, "bounced", "550 no"), ("bounced", "550 no")),
        (Settlement("o1", 1, "queued", "451 later", 5.0), ("queued", "451 later")),
    ],
)
async def test_an_attempt_is_settled_once_and_a_repeat_changes_nothing(
    database: Database, settlement: Settlement, expected: tuple[str, str | None]
) -> None:
    await record(database, confirmation())
    await claim(database)
    assert list(await database.batch(settle, [settlement])) == [True]
    first = await row(database)
    await database.batch(settle, [settlement])
    again = await row(database)
    assert (first.delivery, first.reason) == (again.delivery, again.reason) == expected
    assert (again.next_attempt_at is not None) == (expected[0] == "queued")
    assert again.delivered_at == first.delivered_at
    assert (again.delivered_at is not None) == (expected[0] == "sent")
    assert await claim(database) == []


async def test_who_has_lost_the_lease_cannot_bounce_or_delay_but_what_was_sent_is_sent(
    database: Database,
) -> None:
    await record(database, confirmation())
    await claim(database)
    await database.write(make_all_due)
    await claim(database)
    late = [Settlement("o1", 1, "bounced", "too late"), Settlement("o1", 1, "queued", "too late", 600.0)]
    assert list(await database.batch(settle, late)) == [False, False]
    assert (await row(database)).reason is None
    assert list(await database.batch(settle, [Settlement("o1", 1, "sent")])) == [True]
    assert list(await database.batch(settle, [Settlement("o1", 2, "bounced", "no")])) == [False]
    assert (await row(database)).delivery == "sent"


async def test_undelivered_mail_is_counted_until_it_is_sent_or_bounced(database: Database) -> None:
    assert await database.read(undelivered) == (0, 0.0)
    await record(database, *[confirmation(f"o{n}") for n in range(3)])
    await claim(database)
    await database.batch(settle, [Settlement("o0", 1, "sent"), Settlement("o1", 1, "queued", "later", 60.0)])
    count, oldest_s = await database.read(undelivered)
    assert count == 2
    assert 0 <= oldest_s < 60


async def test_what_is_only_recorded_is_never_due_and_never_undelivered(database: Database) -> None:
    only_record = partial(record_confirmations, deliver=False)
    first = await database.batch(only_record, [confirmation()])
    again = await database.batch(only_record, [confirmation()])
    assert [(r.repeated, r.delivery) for r in [*first, *again]] == [(False, "queued"), (True, "queued")]  # type: ignore[union-attr]  # none is an exception
    await database.write(make_all_due)
    assert await claim(database) == []
    assert await database.read(undelivered) == (0, 0.0)


async def test_pages_of_effects_join_without_gap_or_overlap(database: Database) -> None:
    await record(database, *[confirmation(f"o{n}") for n in range(5)])
    seen: list[str] = []
    seq = 0
    while page := await database.read(partial(confirmations_after, seq=seq, limit=2)):
        seen += [r.order_id for r in page]
        seq = page[-1].seq
    assert sorted(seen) == [f"o{n}" for n in range(5)]
