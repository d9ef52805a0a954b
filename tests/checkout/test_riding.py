"""Outcomes that ride: told at once, written with others or in time, and nothing is lost if they never are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from checkout import entries, group_commit, store
from checkout.group_commit import GroupCommit
from checkout.journal import Journal
from checkout.leases import End
from checkout.orders import Emission, OrderStatus, Outcome, Progress, StepStatus
from checkout.store import Placement, load
from checkout.watching import Watchers
from servicekit.db import Database, StorageUnavailableError
from servicekit.migrate import migrate
from tests.checkout.placements import NAMES, NOW, change, failure, finish, placement, success, up_to
from tests.checkout.world import PACKAGE, eventually

# Longer than any test: what rides is written with something else, or at the end.
NEVER_S = 1.0


@asynccontextmanager
async def riding(database: Database, delay_s: float = NEVER_S) -> AsyncIterator[Journal]:
    journal = Journal(database, Watchers(), delay_s=delay_s)
    try:
        yield journal
    finally:
        await journal.aclose()


async def on_disk(database: Database, placed: Placement) -> Progress:
    return (await database.read(lambda c: load(c, [placed.order.order_id])))[0][1]


async def accepted(journal: Journal, **given: Any) -> Placement:
    placed = placement(**given)
    await journal.accept(placed)
    return placed


async def test_what_is_done_is_told_before_it_is_on_disk_and_readers_see_it(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        done = await finish(journal, placed)
        assert done.status is OrderStatus.COMPLETED
        assert (await on_disk(database, placed)).status is OrderStatus.IN_PROGRESS
        assert (await journal.get(placed.order.order_id))[1] == done
    assert await on_disk(database, placed) == done


async def test_a_list_and_a_count_have_everything_written_first(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        done = await finish(journal, placed)
        [(_, seen)] = await journal.page(OrderStatus.COMPLETED, 0, "", 10)
        assert seen == done == await on_disk(database, placed)
        other = await accepted(journal)
        await finish(journal, other)
        assert (await journal.census())[0] == {"completed": 2}


async def test_all_is_written_for_a_reader_also_if_one_commit_cannot_hold_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "MAX_RIDERS", 2)
    async with riding(database) as journal:
        for placed in [await accepted(journal) for _ in range(5)]:
            await finish(journal, placed)
        assert (await journal.census())[0] == {"completed": 5}


async def test_a_failure_waits_for_the_disk_and_takes_what_rides_with_it(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        order_id = placed.order.order_id
        seen = await journal.record(placed.progress, [success(order_id, "email")])
        seen = await journal.record(seen, [failure(order_id, "warehouse")])
        assert await on_disk(database, placed) == seen
        assert {name: step.status for name, step in seen.steps.items()} == {
            "email": StepStatus.SUCCEEDED,
            "warehouse": StepStatus.FAILED,
            "rewards": StepStatus.PENDING,
        }


async def test_trouble_waits_for_the_disk_for_it_may_be_older_than_what_another_replica_knows(
    database: Database,
) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        trouble = Outcome(placed.order.order_id, "email", StepStatus.PENDING, NOW, last_error="timeout")
        seen = await journal.record(placed.progress, [trouble])
        assert await on_disk(database, placed) == seen


async def test_what_rides_is_written_in_time_where_no_other_commit_goes(database: Database) -> None:
    async with riding(database, delay_s=0.005) as journal:
        placed = await accepted(journal)
        done = await finish(journal, placed)
        async with asyncio.timeout(5):
            while await on_disk(database, placed) != done:  # noqa: ASYNC110 - the disk tells nobody
                await asyncio.sleep(0.001)


async def test_what_has_ridden_for_a_while_goes_with_the_next_order(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "RIPE", 0.0)
    async with riding(database) as journal:
        placed = await accepted(journal)
        done = await finish(journal, placed)
        # Where several write at once, accepts have commits of their own: what waits goes with changes.
        other = await accepted(journal)
        if database.dialect != "sqlite":
            await journal.record(other.progress, [failure(other.order.order_id, "email")])
        assert await on_disk(database, placed) == done


async def test_the_end_of_a_pass_rides_and_is_left_out_if_the_order_is_finished_by_then(
    database: Database,
) -> None:
    emission = Emission("2026-11-22T09:00:00.000000001Z", 7, NOW)
    async with riding(database) as journal:
        finished, unfinished = await accepted(journal), await accepted(journal)
        for placed in (finished, unfinished):
            await journal.end_pass(placed.order.order_id, -1, emission)
        await finish(journal, finished)
        assert [each.order_id for each, _ in await journal.claim(up_to(10), 60)] == [
            unfinished.order.order_id
        ]
        assert [(await on_disk(database, each)).emission for each in (finished, unfinished)] == [
            None,
            emission,
        ]


async def test_the_end_of_a_pass_is_written_before_what_waits_is_made_due(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        await journal.end_pass(placed.order.order_id, 600)
        assert await journal.make_all_due() == 1
        assert len(await journal.claim(up_to(10), 60)) == 1


async def test_what_is_heard_is_settled_only_once_it_is_on_disk(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal, style="choreography")
        order_id = placed.order.order_id
        hearing = asyncio.create_task(journal.hear([success(order_id, name) for name in NAMES]))
        await eventually(lambda: journal._commits.unwritten.told(order_id))
        assert not hearing.done()
        await journal.census()
        assert await hearing == [await on_disk(database, placed)] * 3


async def test_a_change_that_seems_to_be_none_is_held_against_what_is_on_disk(database: Database) -> None:
    """Another replica's operator may have asked for a retry, of which nothing is known here."""
    async with riding(database) as journal, riding(database, 0) as other:
        placed = await accepted(journal, style="choreography")
        order_id = placed.order.order_id
        await journal.hear([failure(order_id, "email"), *(success(order_id, n) for n in NAMES[1:])])
        await other.retry(order_id)
        [again] = await journal.hear([failure(order_id, "email")])
        assert isinstance(again, Progress)
        assert again == await on_disk(database, placed)
        assert again.steps["email"].status is StepStatus.FAILED


async def test_what_an_order_came_to_does_not_change_by_what_somebody_saw_of_it_before(
    database: Database,
) -> None:
    async with riding(database, delay_s=0.002) as journal:
        placed = await accepted(journal)
        done = await finish(journal, placed)
        await journal.census()
        late = Outcome(placed.order.order_id, "email", StepStatus.SUCCEEDED, NOW.replace(year=2030), 7)
        assert await journal.record(placed.progress, [late]) == done == await on_disk(database, placed)


async def test_what_cannot_be_written_is_taken_back_and_its_order_is_taken_up_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with riding(database, delay_s=0.002) as journal:
        placed = await accepted(journal, lease_s=-1, style="choreography")

        async def locked(*_: Any) -> None:
            raise StorageUnavailableError("locked")

        with monkeypatch.context() as patched:
            patched.setattr(database, "batch", locked)
            [heard] = await journal.hear([success(placed.order.order_id, "email")])
            assert isinstance(heard, StorageUnavailableError)
        assert (await journal.get(placed.order.order_id))[1] == placed.progress
        assert len(await journal.claim(up_to(10), 60)) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["done", "done", "failed", "trouble", "end", "pause"])),
    max_size=12,
)


@given(STEPS, st.sampled_from([0.0, 0.0005, 0.01]))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_the_disk_ends_at_what_was_told_and_versions_only_grow(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], delay_s: float
) -> None:
    folder = tmp_path_factory.mktemp("riding")
    url = f"sqlite:///{folder / 'checkout.db'}"
    migrate(PACKAGE, url)

    async def run() -> None:
        async with Database(url, timeout_s=5) as database:
            watchers = Watchers()
            journal = Journal(database, watchers, delay_s=delay_s)
            placed = await accepted(journal)
            order_id = placed.order.order_id
            told: list[Progress] = []
            with watchers.watching(order_id) as watch:
                tell = watch.tell
                watch.tell = lambda progress: (told.append(progress), tell(progress))[1]  # type: ignore[method-assign]
                await asyncio.gather(*(_does(journal, placed, name, what) for name, what in steps))
                await journal.aclose()
            stored = await on_disk(database, placed)
            if told:
                assert stored == max(told, key=lambda each: each.version)
            final = [each for each in told if each.is_final]
            # An order that came to its end stays there, but for a failure that turned out well.
            assert all(each.is_final for each in told if final and each.version > final[0].version)

    asyncio.run(run())


async def _does(journal: Journal, placed: Placement, name: str, what: str) -> None:
    order_id = placed.order.order_id
    does: dict[str, Callable[[], Any]] = {
        "done": lambda: journal.record(placed.progress, [success(order_id, name)]),
        "failed": lambda: journal.record(placed.progress, [failure(order_id, name)]),
        "trouble": lambda: journal.record(
            placed.progress, [Outcome(order_id, name, StepStatus.PENDING, NOW, last_error="timeout")]
        ),
        "end": lambda: journal.end_pass(order_id, 1.0),
        "pause": lambda: asyncio.sleep(0.001),
    }
    await does[what]()


async def test_what_was_submitted_of_an_order_is_written_before_what_came_to_ride_since(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one commit: else the second finds the order unchanged, and both are done over."""
    monkeypatch.setattr(group_commit, "RIPE", 0.0)
    async with riding(database) as journal:
        placed = await accepted(journal)
        order_id = placed.order.order_id
        read_first: list[object] = []
        as_they_stand = store._change_as_they_stand
        monkeypatch.setattr(
            store,
            "_change_as_they_stand",
            lambda *given: (read_first.append(given), as_they_stand(*given))[1],
        )
        submitted = asyncio.create_task(journal.record(placed.progress, [failure(order_id, "email")]))
        await asyncio.sleep(0)
        seen = await journal.record(placed.progress, [success(order_id, "warehouse")])
        assert seen.version == placed.progress.version + 2
        await submitted
        await journal.census()
        assert await on_disk(database, placed) == seen
        assert not read_first


def test_nobody_holds_back_more_than_a_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_QUEUE", 1)
    url = f"sqlite:///{tmp_path / 'checkout.db'}"
    migrate(PACKAGE, url)

    async def run() -> None:
        async with Database(url, timeout_s=5) as database, riding(database) as journal:
            placed = [placement() for _ in range(3)]
            for each in placed:
                await journal.accept(each)
                await finish(journal, each)
            states = [(await on_disk(database, each)).status for each in placed]
            assert states.count(OrderStatus.IN_PROGRESS) <= 1
            assert isinstance(journal._commits, GroupCommit)
            assert await database.read(lambda c: c.scalar(text("SELECT count(*) FROM orders"))) == 3

    asyncio.run(run())


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
async def test_outcomes_that_come_far_apart_go_on_from_each_other(
    database: Database, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """What each was seen to start from is long written by then; nothing need be read for the next."""
    monkeypatch.setattr(store, "_change_as_they_stand", None)
    async with riding(database) as journal:
        placed = await accepted(journal, style=style)
        order_id = placed.order.order_id
        for name in NAMES:
            news = [success(order_id, name)]
            heard = journal.hear(news) if style == "choreography" else journal.record(placed.progress, news)
            hearing = asyncio.ensure_future(heard)
            await eventually(lambda: journal._commits.unwritten.told(order_id))
            await journal.census()
            await hearing
        assert (await on_disk(database, placed)).status is OrderStatus.COMPLETED


async def test_a_failure_is_read_by_nobody_before_it_is_on_disk(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        order_id = placed.order.order_id
        failing = asyncio.create_task(journal.record(placed.progress, [failure(order_id, "email")]))
        await asyncio.sleep(0)
        assert journal._commits.unwritten.told(order_id) is None
        await failing


async def test_a_pass_that_goes_on_after_a_retry_goes_on_from_there(database: Database) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        order_id = placed.order.order_id
        refused = [failure(order_id, "email"), *(success(order_id, name) for name in NAMES[1:])]
        seen = await journal.record(placed.progress, refused)
        await journal.retry(order_id)
        done = await journal.record(seen, [success(order_id, "email")])
        assert done.status is OrderStatus.COMPLETED
        assert done.retries == 1
        await journal.census()
        assert await on_disk(database, placed) == done


async def test_a_pass_that_goes_on_after_an_order_was_abandoned_is_told_what_came_of_it(
    database: Database,
) -> None:
    async with riding(database) as journal:
        placed = await accepted(journal)
        order_id = placed.order.order_id
        await journal.abandon(order_id)
        seen = await journal.record(placed.progress, [success(order_id, "email")])
        assert seen == await on_disk(database, placed)
        assert seen.steps["email"].status is StepStatus.SUCCEEDED
        assert seen.steps["warehouse"].reason == "abandoned"


async def test_a_failure_that_is_not_on_disk_yet_is_told_by_nothing_that_comes_after_it(
    database: Database,
) -> None:
    watchers = Watchers()
    journal = Journal(database, watchers, delay_s=NEVER_S)
    placed = await accepted(journal)
    order_id = placed.order.order_id
    with watchers.watching(order_id) as watch:
        failing = asyncio.create_task(journal.record(placed.progress, [failure(order_id, "email")]))
        await asyncio.sleep(0)
        done = asyncio.create_task(journal.record(placed.progress, [success(order_id, "warehouse")]))
        await asyncio.sleep(0)
        assert (watch.progress, journal._commits.unwritten.told(order_id)) == (None, None)
        await asyncio.gather(failing, done)
        assert watch.progress == await on_disk(database, placed)
    await journal.aclose()


async def test_what_was_told_and_could_not_be_written_is_taken_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchers = Watchers()
    journal = Journal(database, watchers, delay_s=0.002)
    placed = await accepted(journal)
    order_id = placed.order.order_id
    with watchers.watching(order_id) as watch:
        watch.tell(placed.progress)

        async def full(*_: Any) -> None:
            raise StorageUnavailableError("disk full")

        with monkeypatch.context() as patched:
            patched.setattr(database, "batch", full)
            await journal.record(placed.progress, [success(order_id, name) for name in NAMES[:2]])
            assert watch.progress is not placed.progress
            await eventually(lambda: watch.progress == placed.progress)
        _, abandoned = await journal.abandon(order_id)  # whose version is less than what had been told
        assert watch.progress == abandoned
    await journal.aclose()


async def test_a_change_adds_to_another_that_it_has_not_seen() -> None:
    placed = placement()
    order_id = placed.order.order_id
    one, other = (change(placed.progress, success(order_id, name)) for name in NAMES[:2])
    both = one.then(other)
    assert both.after == both.rule(both.before)
    assert [both.after.steps[name].is_final for name in NAMES] == [True, True, False]


async def test_a_reader_waits_for_the_end_of_a_pass_that_is_being_written(database: Database) -> None:
    async with riding(database, delay_s=0.004) as journal:
        placed = await accepted(journal)
        await journal.end_pass(placed.order.order_id, 600)
        unwritten = journal._commits.unwritten
        await eventually(lambda: not len(unwritten))
        assert await journal.make_all_due() == 1


async def test_changes_and_ends_of_several_orders_meet_in_no_ring(postgres_url: str) -> None:
    """Two replicas have each emitted the order of which the other hears."""
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        for _ in range(20):
            first, second = placement(style="choreography"), placement(style="choreography")
            await one.batch(entries.write, [first, second])
            groups = [
                [change(a.progress, success(a.order.order_id, "email")), End(b.order.order_id, 1.0)]
                for a, b in ((first, second), (second, first))
            ]
            pairs = zip((one, other), groups, strict=True)
            written = [each.batch(entries.write, group) for each, group in pairs]
            async with asyncio.timeout(0.9):  # before the database would see a deadlock
                await asyncio.gather(*written)
