"""The journal on both engines: one order for a key, claims, leases, races, pages. Nothing swallowed."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table, create_engine, inspect, select, text, update

from checkout import leases, store, tables
from checkout.journal import Journal, UnknownOrderError
from checkout.leases import End
from checkout.orders import (
    OrderStatus,
    Progress,
    StepStatus,
    WrongStatusError,
)
from checkout.store import Accepted
from checkout.watching import Watchers
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.checkout.placements import NAMES, NOW, change, failure, finish, placement, success, up_to
from tests.checkout.world import PACKAGE


async def test_what_was_accepted_reads_back_as_it_was(journal: Journal) -> None:
    placed = placement("k", accepted_at=NOW + timedelta(microseconds=123_456))
    assert await journal.accept(placed) == Accepted(placed.order.order_id, "f", placed.progress)
    assert await journal.get(placed.order.order_id) == (placed.order, placed.progress)


async def test_an_unknown_order_is_an_error(journal: Journal) -> None:
    with pytest.raises(UnknownOrderError):
        await journal.get("nothing")
    for meddle in (journal.retry, journal.abandon):
        with pytest.raises(UnknownOrderError):
            await meddle("nothing")


async def test_the_largest_total_fits(journal: Journal) -> None:
    placed = placement(total_minor=100 * 10_000 * 100_000_000)
    await journal.accept(placed)
    assert (await journal.get(placed.order.order_id))[0].total_minor == 10**14


async def test_a_hundred_placements_with_one_key_make_one_order(journal: Journal) -> None:
    placements = [placement("k") for _ in range(100)]
    accepted = await asyncio.gather(*(journal.accept(each) for each in placements))
    assert len({each.order_id for each in accepted}) == 1
    assert sum(each.progress is not None for each in accepted) == 1
    assert await journal.census() == ({"in_progress": 1}, NOW)


async def test_two_replicas_that_get_the_same_key_at_once_agree_on_one_order(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        journals = [Journal(one, Watchers()), Journal(other, Watchers())]
        for round_ in range(5):
            accepted = await asyncio.gather(
                *(journals[n % 2].accept(placement(f"k{round_}")) for n in range(20))
            )
            assert len({each.order_id for each in accepted}) == 1
            assert sum(each.progress is not None for each in accepted) == 1
        for journal in journals:
            await journal.aclose()


async def test_a_repeat_learns_the_fingerprint_that_the_key_is_bound_to(journal: Journal) -> None:
    first = placement("k", print_="one")
    await journal.accept(first)
    assert await journal.accept(placement("k", print_="two")) == Accepted(first.order.order_id, "one")
    assert await journal.by_key("anonymous", "k") == Accepted(first.order.order_id, "one")
    assert await journal.by_key("somebody", "k") is None


async def test_keys_belong_to_their_caller_and_orders_without_one_never_clash(journal: Journal) -> None:
    placed = [placement("k"), placement("k", caller="caller:shop"), placement(), placement()]
    accepted = [await journal.accept(each) for each in placed]
    assert all(each.progress is not None for each in accepted)


async def test_duplicates_within_one_group_each_get_the_answer_that_is_theirs(database: Database) -> None:
    first, again, other, keyless = placement("k"), placement("k"), placement("l"), placement()
    results = await database.batch(store.accept, [first, again, other, keyless])
    assert results == [
        Accepted(first.order.order_id, "f", first.progress),
        Accepted(first.order.order_id, "f"),
        Accepted(other.order.order_id, "f", other.progress),
        Accepted(keyless.order.order_id, None, keyless.progress),
    ]


async def test_an_order_id_that_is_there_already_counts_as_accepted(database: Database) -> None:
    """The answer to a COMMIT may get lost: the whole group is written once more."""
    group = [placement("k"), placement(), placement("l")]
    first = await database.batch(store.accept, group)
    assert await database.batch(store.accept, group) == first
    counted, _ = await database.read(store.census)
    assert counted == {"in_progress": 3}


async def test_bad_items_cost_their_neighbours_nothing(database: Database, database_url: str) -> None:
    good = [placement("a"), placement("b"), placement("c"), placement("a")]
    nul = placement("nul", caller="a\x00b")
    huge = placement("huge", total_minor=2**63)
    results = await database.batch(store.accept, [good[0], nul, good[1], huge, good[2], good[3]])
    kept = [results[0], results[2], results[4]]
    assert kept == [Accepted(each.order.order_id, "f", each.progress) for each in good[:3]]
    assert results[5] == Accepted(good[0].order.order_id, "f")
    assert isinstance(results[3], Exception)
    # SQLite keeps a NUL; PostgreSQL refuses it.
    assert isinstance(results[1], Exception) == database_url.startswith("postgresql")
    stored = await database.read(lambda c: store.load(c, [each.order.order_id for each in good[:3]]))
    assert [found[0].order_id for found in stored] == [each.order.order_id for each in good[:3]]


async def test_what_was_accepted_is_there_for_a_connection_of_its_own(
    journal: Journal, database_url: str
) -> None:
    placed = placement()
    await journal.accept(placed)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        ids = connection.scalars(select(tables.orders.c.order_id)).all()
    engine.dispose()
    assert ids == [placed.order.order_id]


async def test_outcomes_complete_an_order(journal: Journal) -> None:
    placed = placement()
    await journal.accept(placed)
    progress = await finish(journal, placed)
    assert (progress.status, progress.completed_at) == (OrderStatus.COMPLETED, NOW)
    stored = (await journal.get(placed.order.order_id))[1]
    assert stored == progress
    assert stored.steps["email"].result == {"is": "email"}


async def test_outcomes_of_one_order_in_one_group_all_count(journal: Journal) -> None:
    placed = placement()
    await journal.accept(placed)
    seen = placed.progress
    told = await asyncio.gather(
        *(journal.record(seen, [success(placed.order.order_id, name)]) for name in NAMES)
    )
    stored = (await journal.get(placed.order.order_id))[1]
    assert stored.status is OrderStatus.COMPLETED
    assert max(told, key=lambda each: each.version) == stored


async def test_outcomes_recorded_by_two_replicas_at_once_are_both_kept(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        journals = [Journal(one, Watchers()), Journal(other, Watchers())]
        for _ in range(10):
            placed = placement()
            await journals[0].accept(placed)
            order_id = placed.order.order_id
            seen = await journals[0].record(placed.progress, [success(order_id, "email")])
            await asyncio.gather(
                journals[0].record(seen, [success(order_id, "warehouse")]),
                journals[1].record(seen, [success(order_id, "rewards")]),
            )
            stored = (await journals[1].get(order_id))[1]
            assert stored.status is OrderStatus.COMPLETED
            assert stored.completed_at == NOW
        for journal in journals:
            await journal.aclose()


async def test_a_change_waits_for_the_other_that_holds_the_order(postgres_url: str) -> None:
    """The last two steps end in transactions that overlap: whoever comes second sees the first."""
    migrate(PACKAGE, postgres_url)
    engine = create_engine(postgres_url)
    placed = placement()
    order_id = placed.order.order_id
    with engine.begin() as connection:
        store.accept(connection, [placed])
    first_has_written = threading.Event()
    go_on = threading.Event()

    def first() -> None:
        with engine.begin() as connection:
            store.change(
                connection,
                [change(placed.progress, success(order_id, "email"), success(order_id, "rewards"))],
            )
            first_has_written.set()
            go_on.wait(5)

    def second() -> Progress:
        with engine.begin() as connection:
            [after] = store.change(connection, [change(placed.progress, success(order_id, "warehouse"))])
        return after

    one = asyncio.create_task(asyncio.to_thread(first))
    await asyncio.to_thread(first_has_written.wait, 5)
    other = asyncio.create_task(asyncio.to_thread(second))
    await asyncio.to_thread(_until_blocked, engine)
    go_on.set()
    await one
    assert (await other).status is OrderStatus.COMPLETED
    engine.dispose()


def _until_blocked(engine: Any) -> None:
    blocked = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    for _ in range(1_000):
        with engine.connect() as connection:
            if connection.scalar(blocked):
                return
    raise AssertionError("nobody waits")


async def test_a_change_of_an_order_that_somebody_else_has_changed_adds_to_that(database: Database) -> None:
    placed = placement()
    order_id = placed.order.order_id
    await database.batch(store.accept, [placed])
    one = change(placed.progress, success(order_id, "email"))
    other = change(placed.progress, success(order_id, "warehouse"))
    await database.batch(store.change, [one])
    [result] = await database.batch(store.change, [other])
    kept = (await database.read(lambda c: store.load(c, [order_id])))[0][1]
    assert result == kept
    assert {name: step.is_final for name, step in kept.steps.items()} == {
        "email": True,
        "warehouse": True,
        "rewards": False,
    }


async def test_a_stale_change_takes_no_neighbour_with_it(journal: Journal) -> None:
    stale, fresh = placement(), placement()
    for each in (stale, fresh):
        await journal.accept(each)
    await journal.record(stale.progress, [failure(stale.order.order_id, "email")])
    ended = await asyncio.gather(*(finish(journal, each) for each in (stale, fresh)))
    assert [each.status for each in ended] == [OrderStatus.COMPLETED, OrderStatus.COMPLETED]
    for each, progress in zip((stale, fresh), ended, strict=True):
        assert (await journal.get(each.order.order_id))[1] == progress


async def test_an_outcome_of_an_order_that_is_not_there_is_an_error(journal: Journal) -> None:
    with pytest.raises(KeyError):
        await journal.record(placement().progress, [success("nothing", "email")])


async def test_watchers_hear_of_a_change_once_it_is_committed(database: Database) -> None:
    watchers = Watchers()
    journal = Journal(database, watchers)
    placed = placement()
    await journal.accept(placed)
    with watchers.watching(placed.order.order_id) as watch:
        progress = await journal.record(placed.progress, [success(placed.order.order_id, "email")])
        assert watch.progress == progress
    await journal.aclose()


async def test_watchers_hear_of_a_change_whose_pass_ended_during_the_commit(database: Database) -> None:
    watchers = Watchers()
    journal = Journal(database, watchers)
    placed = placement()
    await journal.accept(placed)
    with watchers.watching(placed.order.order_id) as watch:
        recording = asyncio.create_task(
            journal.record(placed.progress, [success(placed.order.order_id, "email")])
        )
        await asyncio.sleep(0)
        recording.cancel()
        await journal.aclose()
        assert recording.cancelled()
        assert watch.progress is not None
        assert watch.progress.version == placed.progress.version + 1


async def test_an_order_is_claimed_once_it_is_due_and_by_one_only(journal: Journal) -> None:
    fresh, due = placement(lease_s=60), placement(lease_s=-1)
    for each in (fresh, due):
        await journal.accept(each)
    [(claimed, progress)] = await journal.claim(up_to(10), 60)
    assert (claimed, progress) == (due.order, due.progress)
    assert await journal.claim(up_to(10), 60) == []


async def test_a_lease_that_has_run_out_lets_somebody_else_claim(journal: Journal) -> None:
    await journal.accept(placement(lease_s=-1))
    assert len(await journal.claim(up_to(10), -1)) == 1
    assert len(await journal.claim(up_to(10), 60)) == 1


async def test_the_longest_overdue_come_first_and_no_more_than_asked_for(journal: Journal) -> None:
    placements = [placement(lease_s=-seconds) for seconds in (1, 3, 2)]
    for each in placements:
        await journal.accept(each)
    claimed = await journal.claim(up_to(2), 60)
    assert [found.order_id for found, _ in claimed] == [
        placements[1].order.order_id,
        placements[2].order.order_id,
    ]


async def test_two_claimers_never_share_an_order(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    async with Database(postgres_url, timeout_s=5) as one, Database(postgres_url, timeout_s=5) as other:
        journals = [Journal(one, Watchers()), Journal(other, Watchers())]
        await asyncio.gather(*(journals[0].accept(placement(lease_s=-1)) for _ in range(60)))
        claims = await asyncio.gather(*(journals[n % 2].claim(up_to(10), 60) for n in range(8)))
        claimed = [found.order_id for claim in claims for found, _ in claim]
        assert len(claimed) == len(set(claimed))
        claimed += [found.order_id for found, _ in await journals[0].claim(up_to(100), 60)]
        assert len(set(claimed)) == len(claimed) == 60
        for journal in journals:
            await journal.aclose()


async def test_a_claimer_passes_over_what_another_holds_at_the_moment(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        store.accept(connection, [placement(lease_s=-1)])
    with engine.begin() as holder, engine.begin() as passer:
        assert len(leases.claim(holder, up_to(10), 60)) == 1
        assert leases.claim(passer, up_to(10), 60) == []
    engine.dispose()


def test_making_due_waits_for_what_another_holds_at_the_moment(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    engine = create_engine(postgres_url)
    placed = placement()
    with engine.begin() as connection:
        store.accept(connection, [placed])
        leases.end_passes(connection, [End(placed.order.order_id, 600)])
    made: list[int] = []

    def make_due() -> None:
        with engine.begin() as connection:
            made.append(leases.make_due(connection, 10, style=None, but_stamp="", leased_too=False))

    waiting = threading.Thread(target=make_due)
    with engine.begin() as holder:
        store.progress_of(holder, [placed.order.order_id], lock=True)
        waiting.start()
        waiting.join(0.3)
    waiting.join(10)
    assert made == [1]
    engine.dispose()


@pytest.mark.parametrize("ending", ["completed", "needs_attention"])
async def test_a_finished_order_is_never_claimed(journal: Journal, ending: str) -> None:
    placed = placement(lease_s=-1)
    order_id = placed.order.order_id
    await journal.accept(placed)
    last = success if ending == "completed" else failure
    outcomes = [success(order_id, "email"), success(order_id, "warehouse"), last(order_id, "rewards")]
    assert (await journal.record(placed.progress, outcomes)).status == ending
    assert await journal.claim(up_to(10), 60) == []
    await journal.end_pass(order_id, -1)
    assert await journal.claim(up_to(10), 60) == []


async def test_the_end_of_a_pass_says_when_the_next_may_start_and_counts_it(journal: Journal) -> None:
    soon, late = placement(), placement()
    for each in (soon, late):
        await journal.accept(each)
    await asyncio.gather(journal.end_pass(soon.order.order_id, -1), journal.end_pass(late.order.order_id, 60))
    [(claimed, progress)] = await journal.claim(up_to(10), 60)
    assert (claimed.order_id, progress.passes) == (soon.order.order_id, 1)


async def test_the_same_order_twice_in_one_group_of_ends_is_no_error(journal: Journal) -> None:
    placed = placement()
    await journal.accept(placed)
    await asyncio.gather(*(journal.end_pass(placed.order.order_id, -1) for _ in range(3)))
    assert [progress.passes for _, progress in await journal.claim(up_to(10), 60)] == [3]


async def test_after_a_restart_everything_unfinished_is_due_in_bounded_batches(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkout.journal.MAX_AT_ONCE", 3)
    placements = [placement(lease_s=60) for _ in range(8)]
    for each in placements:
        await journal.accept(each)
    await finish(journal, placements[0])
    assert await journal.make_all_due(leased_too=True) == 7
    assert len(await journal.claim(up_to(10), 60)) == 7


async def test_what_waits_for_a_service_falls_due_without_the_first_passes(journal: Journal) -> None:
    waiting, first = placement(), placement()
    for each in (waiting, first):
        await journal.accept(each)
    await journal.end_pass(waiting.order.order_id, 600)
    assert await journal.make_all_due() == 1
    assert [found.order_id for found, _ in await journal.claim(up_to(10), 60)] == [waiting.order.order_id]


@pytest.mark.parametrize("last_pause_s", [600, -1])  # whether it still waits, or is due already
async def test_the_pauses_of_what_is_made_due_begin_anew(journal: Journal, last_pause_s: float) -> None:
    placed = placement()
    await journal.accept(placed)
    for pause_s in (5, 10, last_pause_s):
        await journal.end_pass(placed.order.order_id, pause_s)
    assert await journal.make_all_due() == 1
    assert await journal.make_all_due() == 0
    [(_, progress)] = await journal.claim(up_to(10), 60)
    assert progress.passes == 0


async def test_the_pauses_of_what_is_due_at_the_end_of_its_pass_begin_anew(journal: Journal) -> None:
    placed = placement()
    await journal.accept(placed)
    for pause_s in (5, 10, 0):
        await journal.end_pass(placed.order.order_id, pause_s)
    [(_, progress)] = await journal.claim(up_to(10), 60)
    assert progress.passes == 0


async def test_the_next_to_fall_due_can_be_taken_before_its_time(journal: Journal) -> None:
    placements = [placement() for _ in range(3)]
    for seconds, each in zip((300, 200, 400), placements, strict=True):
        await journal.accept(each)
        await journal.end_pass(each.order.order_id, seconds)
    await journal.accept(placement(lease_s=10))
    [(taken, _)] = await journal.claim_next(500, "orchestration")
    assert taken.order_id == placements[1].order.order_id
    [(taken, _)] = await journal.claim_next(500, "orchestration")
    assert taken.order_id == placements[0].order.order_id
    assert await journal.claim_next(500, "choreography") == []


async def test_a_retried_order_is_due_at_once_with_its_failed_steps_pending(journal: Journal) -> None:
    placed = placement()
    order_id = placed.order.order_id
    await journal.accept(placed)
    outcomes = [success(order_id, "email"), failure(order_id, "warehouse"), failure(order_id, "rewards")]
    await journal.record(placed.progress, outcomes)
    _, progress = await journal.retry(order_id)
    assert {name: step.status for name, step in progress.steps.items()} == {
        "email": StepStatus.SUCCEEDED,
        "warehouse": StepStatus.PENDING,
        "rewards": StepStatus.PENDING,
    }
    assert [found.order_id for found, _ in await journal.claim(up_to(10), 60)] == [order_id]
    with pytest.raises(WrongStatusError):
        await journal.retry(order_id)


async def test_an_abandoned_order_is_claimed_no_more(journal: Journal) -> None:
    placed = placement(lease_s=-1)
    await journal.accept(placed)
    _, progress = await journal.abandon(placed.order.order_id)
    assert progress.status is OrderStatus.NEEDS_ATTENTION
    assert await journal.claim(up_to(10), 60) == []


async def test_a_census_counts_by_status_and_names_the_oldest_unfinished(journal: Journal) -> None:
    assert await journal.census() == ({}, None)
    old, young, done, stuck = (
        placement(accepted_at=NOW + timedelta(minutes=minutes)) for minutes in (1, 2, 0, 0)
    )
    for each in (old, young, done, stuck):
        await journal.accept(each)
    await finish(journal, done)
    await journal.abandon(stuck.order.order_id)
    counted, oldest = await journal.census()
    assert counted == {"in_progress": 2, "completed": 1, "needs_attention": 1}
    assert oldest == NOW + timedelta(minutes=1)


async def test_pages_follow_each_other_without_gap_or_overlap(journal: Journal) -> None:
    placements = [placement() for _ in range(7)]
    await asyncio.gather(*(journal.accept(each) for each in placements))
    seen: list[str] = []
    for _ in range(10):
        page = await journal.page(None, 0, seen[-1] if seen else "", 3)
        if not page:
            break
        seen += [found.order_id for found, _ in page]
    assert seen == sorted(each.order.order_id for each in placements)


async def test_a_page_can_be_of_one_status_and_of_an_age(journal: Journal) -> None:
    now = datetime.now(UTC)
    old, young = placement(accepted_at=now - timedelta(hours=1)), placement(accepted_at=now)
    for each in (old, young):
        await journal.accept(each)
    await finish(journal, old)

    async def found(status: OrderStatus | None, older_than_s: float) -> list[str]:
        return [each.order_id for each, _ in await journal.page(status, older_than_s, "", 10)]

    assert await found(None, 60) == [old.order.order_id]
    assert await found(OrderStatus.IN_PROGRESS, 0) == [young.order.order_id]
    assert await found(OrderStatus.IN_PROGRESS, 60) == []


async def test_refresh_tells_watchers_only_of_what_is_newer(database: Database) -> None:
    watchers = Watchers()
    journal = Journal(database, watchers)
    placed = placement()
    order_id = placed.order.order_id
    await journal.accept(placed)
    elsewhere = replace(placed.progress, version=7)

    def change(connection: Connection) -> None:
        connection.execute(update(tables.orders).values(version=elsewhere.version))

    with watchers.watching(order_id) as watch:
        watch.tell(placed.progress)
        await journal.refresh(watchers.seen())
        assert watch.progress is placed.progress
        await database.write(change)
        await journal.refresh({**watchers.seen(), "unknown": 0})
        assert watch.progress is not None
        assert watch.progress.version == 7
    await journal.aclose()


async def test_what_was_submitted_is_written_before_the_journal_is_closed(database: Database) -> None:
    journal = Journal(database, Watchers())
    writing = [asyncio.create_task(journal.accept(placement())) for _ in range(30)]
    await asyncio.sleep(0)
    await journal.aclose()
    await asyncio.gather(*writing)
    counted, _ = await database.read(store.census)
    assert counted == {"in_progress": 30}


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_the_tables_are_what_the_migrations_make(tmp_path: Path, table: Table) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    migrate(PACKAGE, url)
    engine = create_engine(url)
    columns: Sequence[Any] = inspect(engine).get_columns(table.name)
    engine.dispose()
    assert [(each["name"], each["nullable"]) for each in columns] == [
        (column.name, column.nullable) for column in table.columns
    ]
