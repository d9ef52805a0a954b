"""What the journal hears of choreographed orders, on both engines: twice, in any sequence, among bad news."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from checkout.journal import Journal, UnknownOrderError
from checkout.orders import Emission, OrderStatus, Outcome, Progress, StepStatus
from checkout.store import Placement
from checkout.watching import Watchers
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.checkout.placements import NAMES, NOW, failure, finish, placement, success, up_to
from tests.checkout.world import PACKAGE

EMISSION = Emission("2026-11-22T09:00:00.000000001Z", 7, NOW)


@pytest.fixture
def watchers() -> Watchers:
    return Watchers()


@pytest.fixture
async def journal(database: Database, watchers: Watchers) -> AsyncIterator[Journal]:
    """A journal on each engine, which can be watched."""
    opened = Journal(database, watchers)
    yield opened
    await opened.aclose()


async def choreographed(journal: Journal, **given: object) -> Placement:
    placed = placement(style="choreography", **given)
    await journal.accept(placed)
    return placed


async def stored(journal: Journal, placed: Placement) -> Progress:
    return (await journal.get(placed.order.order_id))[1]


@pytest.mark.parametrize("sequence", list(itertools.permutations(NAMES)))
async def test_outcomes_complete_an_order_in_any_sequence(
    journal: Journal, sequence: tuple[str, ...]
) -> None:
    placed = await choreographed(journal)
    for name in sequence:
        assert not (await stored(journal, placed)).is_final
        await journal.hear([success(placed.order.order_id, name)])
    progress = await stored(journal, placed)
    assert (progress.status, progress.completed_at) == (OrderStatus.COMPLETED, NOW)
    assert progress.steps["rewards"].result == {"is": "rewards"}


async def test_what_is_heard_twice_counts_once(journal: Journal) -> None:
    placed = await choreographed(journal)
    order_id = placed.order.order_id
    news = [success(order_id, name) for name in NAMES]
    first = await journal.hear([*news, news[0]])
    assert [each.status for each in first if isinstance(each, Progress)] == [OrderStatus.COMPLETED] * 4
    assert await journal.hear(news) == first[:3]
    assert (await stored(journal, placed)).steps["email"].attempts == 1


async def test_a_late_failure_undoes_no_success_and_a_late_success_undoes_a_failure(
    journal: Journal,
) -> None:
    placed = await choreographed(journal, names=["email"])
    order_id = placed.order.order_id
    [failed] = await journal.hear([failure(order_id, "email")])
    assert isinstance(failed, Progress)
    assert failed.status is OrderStatus.NEEDS_ATTENTION
    [done] = await journal.hear([success(order_id, "email")])
    assert isinstance(done, Progress)
    assert done.status is OrderStatus.COMPLETED
    assert await journal.hear([failure(order_id, "email")]) == [done]


async def test_an_outcome_of_no_choreographed_order_is_an_error_and_costs_the_others_nothing(
    journal: Journal,
) -> None:
    mine = await choreographed(journal)
    theirs = placement()
    await journal.accept(theirs)
    results = await journal.hear(
        [
            success("nothing", "email"),
            success(theirs.order.order_id, "email"),
            success(mine.order.order_id, "email"),
        ]
    )
    assert [type(each) for each in results] == [UnknownOrderError, UnknownOrderError, Progress]
    assert (await stored(journal, mine)).steps["email"].status is StepStatus.SUCCEEDED
    assert await stored(journal, theirs) == theirs.progress


async def test_news_that_cannot_be_written_costs_its_neighbours_nothing(
    journal: Journal, database_url: str
) -> None:
    first, second, third = [await choreographed(journal) for _ in range(3)]

    def told(placed: Placement, result: object) -> Outcome:
        return replace(success(placed.order.order_id, "email"), result={"is": result})

    nul = success("a\x00b", "email")
    results = await journal.hear(
        [
            told(first, "x"),
            nul,
            told(second, 2**70),
            told(first, "y"),
            told(third, "\x00"),
            told(second, 2**63),
        ]
    )
    assert isinstance(results[0], Progress)
    assert isinstance(results[2], Exception)
    assert results[3] == results[0]
    # SQLite finds nothing under such an id; PostgreSQL refuses to look.
    assert isinstance(results[1], Exception)
    assert isinstance(results[1], UnknownOrderError) == database_url.startswith("sqlite")
    kept = [(await stored(journal, each)).steps["email"].result for each in (first, second, third)]
    assert kept == [{"is": "x"}, {"is": 2**63}, {"is": "\x00"}]


async def test_watchers_hear_what_is_heard(journal: Journal, watchers: Watchers) -> None:
    placed = await choreographed(journal)
    with watchers.watching(placed.order.order_id) as watch:
        await journal.hear([success(placed.order.order_id, name) for name in NAMES])
        assert watch.progress is not None
        assert watch.progress.is_final


async def test_two_replicas_that_hear_of_the_same_orders_at_once_lose_nothing(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        journals = [Journal(one, Watchers()), Journal(other, Watchers())]
        placed = [await choreographed(journals[0]) for _ in range(20)]
        news = [[success(each.order.order_id, name) for each in placed] for name in NAMES]
        ends = (journals[0].end_pass(each.order.order_id, 5, EMISSION) for each in placed)
        await asyncio.gather(
            journals[0].hear(news[0]),
            journals[1].hear(news[1][::-1]),
            journals[0].hear(news[2][::2] + news[2][1::2]),
            *ends,
        )
        for each in placed:
            progress = await stored(journals[1], each)
            assert progress.status is OrderStatus.COMPLETED
            assert progress.version == 4
        for journal in journals:
            await journal.aclose()


async def test_a_later_joiner_adds_a_step_and_holds_nobody_up(journal: Journal) -> None:
    placed = await choreographed(journal)
    order_id = placed.order.order_id
    await journal.hear([failure(order_id, "gift-wrap"), *(success(order_id, name) for name in NAMES)])
    progress = await stored(journal, placed)
    assert progress.status is OrderStatus.COMPLETED
    assert progress.steps["gift-wrap"].status is StepStatus.FAILED
    assert not progress.steps["gift-wrap"].awaited
    assert all(progress.steps[name].awaited for name in NAMES)


async def test_an_order_that_awaits_nobody_waits_until_somebody_is_known(journal: Journal) -> None:
    placed = await choreographed(journal, names=[])
    order_id = placed.order.order_id
    await journal.hear([success(order_id, "email")])
    assert not (await journal.await_participants(placed.progress, ())).awaits_anybody
    assert (await stored(journal, placed)).status is OrderStatus.IN_PROGRESS
    # `placed.progress` knows nothing of the outcome: what counts is what is stored.
    known = await journal.await_participants(placed.progress, NAMES)
    assert known == await stored(journal, placed)
    assert known.steps["email"].status is StepStatus.SUCCEEDED
    assert await journal.await_participants(placed.progress, ["gift-wrap"]) == known
    await journal.hear([success(order_id, name) for name in NAMES[1:]])
    assert (await stored(journal, placed)).status is OrderStatus.COMPLETED


async def test_an_order_without_a_timeline_is_closed_and_never_claimed_again(journal: Journal) -> None:
    placed = await choreographed(journal, names=[], lease_s=-1)
    closed = await journal.close(placed.progress)
    assert (closed.status, closed.steps) == (OrderStatus.COMPLETED, {})
    assert await journal.close(placed.progress) == closed == await stored(journal, placed)
    assert await journal.claim(up_to(10), 60) == []


async def test_the_end_of_a_pass_says_where_the_event_is(journal: Journal) -> None:
    placed = await choreographed(journal)
    order_id = placed.order.order_id
    assert (await stored(journal, placed)).emission is None
    await journal.end_pass(order_id, -1, EMISSION)
    await journal.end_pass(order_id, -1, EMISSION)
    [(_, claimed)] = await journal.claim(up_to(10), 60)
    assert (claimed.emission, claimed.passes) == (EMISSION, 2)
    newer = replace(EMISSION, sequence=2**63 - 1, at=NOW + timedelta(hours=1))
    await journal.end_pass(order_id, 5, newer)
    assert (await stored(journal, placed)).emission == newer
    await journal.end_pass(order_id, 5)
    assert (await stored(journal, placed)).emission is None


async def test_a_retry_is_counted_and_the_event_due_again_but_giving_up_keeps_it(journal: Journal) -> None:
    placed = await choreographed(journal)
    order_id = placed.order.order_id
    await journal.end_pass(order_id, 600, EMISSION)
    for retries in (1, 2):
        await journal.hear([failure(order_id, "email"), *(success(order_id, name) for name in NAMES[1:])])
        _, progress = await journal.retry(order_id)
        assert (progress.retries, progress.emission, progress.passes) == (retries, None, 0)
        # A pass that began before the retry has nothing to say any more.
        await journal.end_pass(order_id, 600, EMISSION, retries - 1)
        [(_, due)] = await journal.claim(up_to(10), 60)
        assert (due.retries, due.emission, due.passes) == (retries, None, 0)
        await journal.end_pass(order_id, 600, EMISSION, retries)
    _, given_up = await journal.abandon(order_id)
    assert (given_up.retries, given_up.emission) == (2, EMISSION)


async def test_a_retired_participants_pending_steps_are_skipped_everywhere_else_nothing(
    journal: Journal, watchers: Watchers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkout.journal.MAX_AT_ONCE", 3)
    waiting = [await choreographed(journal) for _ in range(7)]
    owing = waiting[0].order.order_id
    await journal.hear([success(owing, "warehouse"), success(owing, "rewards")])
    refused, done = await choreographed(journal), await choreographed(journal)
    await journal.hear([failure(refused.order.order_id, "email")])
    await journal.hear([success(done.order.order_id, name) for name in NAMES])
    orchestrated = placement()
    await journal.accept(orchestrated)
    with watchers.watching(owing) as watch:
        assert await journal.retire("email") == 7
        assert watch.progress is not None
        assert watch.progress.status is OrderStatus.COMPLETED
    assert await journal.retire("email") == 0
    seen = [(await stored(journal, each)).steps["email"] for each in (*waiting, refused, done, orchestrated)]
    assert [step.status for step in seen] == ["skipped"] * 7 + ["failed", "succeeded", "pending"]
    assert {step.reason for step in seen[:7]} == {"participant retired"}
    assert (await stored(journal, waiting[1])).status is OrderStatus.IN_PROGRESS


async def test_one_orders_debts_to_a_retired_participant_can_be_released_alone(journal: Journal) -> None:
    one, other = await choreographed(journal), await choreographed(journal)
    progress = await journal.release(one.progress, {"email"})
    assert progress.steps["email"].status is StepStatus.SKIPPED
    assert progress == await stored(journal, one)
    assert await stored(journal, other) == other.progress


async def test_one_styles_orders_fall_due_without_the_others(journal: Journal) -> None:
    placed = await choreographed(journal)
    orchestrated = placement()
    await journal.accept(orchestrated)
    for each in (placed, orchestrated):
        await journal.end_pass(each.order.order_id, 600)
    assert await journal.make_all_due("choreography") == 1
    assert [found.order_id for found, _ in await journal.claim(up_to(10), 60)] == [placed.order.order_id]
    assert await journal.make_all_due("choreography", but_stamp=EMISSION.stamp) == 0
    await journal.end_pass(placed.order.order_id, 600, EMISSION)
    # Its event is with the broker: it would try nothing.
    assert await journal.claim_next(60, "choreography") == []
    assert await journal.make_all_due("choreography", but_stamp=EMISSION.stamp) == 0
    assert await journal.make_all_due("choreography", but_stamp="another") == 1
    [(taken, _)] = await journal.claim_next(60, "orchestration")
    assert taken.order_id == orchestrated.order.order_id
    assert await journal.make_all_due(leased_too=True) == 1


async def test_orders_from_before_the_choreography_are_kept_by_its_migration(
    database_url: str, tmp_path: Path
) -> None:
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path / 'old.db'}"
    before = tmp_path / "before" / "migrations"
    before.mkdir(parents=True)
    shutil.copy(PACKAGE / "migrations" / "0001_orders.py", before)
    migrate(before.parent, database_url)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text(OLD_ROW))
    engine.dispose()
    migrate(PACKAGE, database_url)
    async with Database(database_url, timeout_s=5) as database:
        journal = Journal(database, Watchers())
        _, progress = await journal.get("old")
        assert (progress.emission, progress.retries, progress.status) == (None, 0, OrderStatus.IN_PROGRESS)
        assert progress.steps["email"].awaited
        assert (await journal.record(progress, [success("old", "email")])).status is OrderStatus.COMPLETED
        await finish(journal, await choreographed(journal))
        await journal.aclose()


OLD_ROW = """
INSERT INTO orders (order_id, style, caller, currency, total_minor, details, accepted_at, status, steps,
                    version, resume_after, leased, passes)
VALUES ('old', 'orchestration', 'anonymous', 'GBP', 1, '{"customer": {}, "lines": [], "ship_to": {}}',
        1700000000000000, 'in_progress',
        '[{"name": "email", "status": "pending", "attempts": 0, "result": null, "reason": null,
           "last_error": null, "since": null, "finished_at": null}]',
        1, 0, true, 0)
"""
