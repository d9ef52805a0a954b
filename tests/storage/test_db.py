"""The storage on both engines: what is kept, what is redone, and who gets which error."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Column, Connection, Dialect, MetaData, Table, create_engine, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from servicekit import db
from servicekit.batching import Batcher
from servicekit.db import Database, Instant, StorageUnavailableError, epoch_now
from tests.storage.notes import Note, add, create, keep, names

DRIVER_ERRORS: dict[str, Callable[[str], Exception]] = {
    "sqlite": sqlite3.OperationalError,
    "postgresql": psycopg.OperationalError,
}


@contextmanager
def locked_out(url: str) -> Iterator[None]:
    """Somebody else holds the lock that every writer needs."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    sqlite = make_url(url).get_backend_name() == "sqlite"
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
        if not sqlite:
            connection.exec_driver_sql("LOCK TABLE notes IN EXCLUSIVE MODE")
        try:
            yield
        finally:
            connection.exec_driver_sql("ROLLBACK")
    engine.dispose()


async def failing_commits(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, committed: bool, times: int = 1
) -> None:
    """The next commits of this database get no answer; whether they took place is up to `committed`."""
    dialect: Dialect = await database.write(lambda connection: connection.dialect)
    commit: Callable[[Any], None] = dialect.do_commit
    left = times

    def without_answer(connection: Any) -> None:
        nonlocal left
        if left == 0:
            commit(connection)
            return
        left -= 1
        if committed:
            commit(connection)
        raise DRIVER_ERRORS[database.dialect]("the connection went away")

    monkeypatch.setattr(dialect, "do_commit", without_answer)


async def test_what_was_written_is_read_back(database: Database) -> None:
    assert await database.write(lambda c: add(c, [("a", 1)])) == ["a"]
    assert await database.read(names) == {"a"}


async def test_a_transaction_that_raises_leaves_nothing_behind(database: Database) -> None:
    def work(connection: Connection) -> None:
        add(connection, [("a", 1)])
        raise LookupError("changed its mind")

    for _ in range(2):
        with pytest.raises(LookupError):
            await database.write(work)
    assert await database.read(names) == set()


async def test_bad_items_in_a_group_get_their_own_error_and_their_neighbours_are_kept(
    database: Database,
) -> None:
    await database.batch(add, [("taken", 0)])
    items: list[Note] = [
        ("good-1", 1),
        ("taken", 2),
        ("good-2", 3),
        ("too-large", 2**63),
        ("good-3", 4),
        ("nul\x00", 5),
        ("good-3", 6),
        ("good-4", -(2**63)),
    ]
    results = await database.batch(add, items)
    good = {"good-1", "good-2", "good-3", "good-4"}
    kept = await database.read(names)
    assert good | {"taken"} <= kept
    assert isinstance(results[1], IntegrityError)
    assert isinstance(results[3], OverflowError | DBAPIError)
    assert isinstance(results[6], IntegrityError)
    assert [result for result in results if result in good] == ["good-1", "good-2", "good-3", "good-4"]
    if database.dialect == "postgresql":  # SQLite stores a NUL; the edges refuse it for both
        assert isinstance(results[5], DBAPIError)
    assert kept - good - {"taken"} <= {"nul\x00"}


async def test_an_error_of_a_lone_item_is_its_result_and_the_next_item_works(database: Database) -> None:
    await database.batch(add, [("taken", 0)])
    (error,) = await database.batch(add, [("taken", 1)])
    assert isinstance(error, IntegrityError)
    assert await database.batch(add, [("a", 1)]) == ["a"]


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_without_an_answer_is_redone_and_already_there_counts(
    database: Database, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    await failing_commits(database, monkeypatch, committed=committed)
    assert await database.batch(keep, [("a", 1), ("b", 2)]) == ["there" if committed else "new"] * 2
    assert await database.read(names) == {"a", "b"}


async def test_a_group_redone_item_by_item_survives_a_commit_without_an_answer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failing_commits(database, monkeypatch, committed=True)
    results = await database.batch(keep, [("a", 1), ("too-large", 2**63), ("b", 2)])
    assert (results[0], results[2]) == ("there", "there")
    assert isinstance(results[1], Exception)
    assert await database.read(names) == {"a", "b"}


async def test_trouble_while_a_group_is_redone_item_by_item_is_blamed_on_no_item(database: Database) -> None:
    calls: list[int] = []

    def perform(connection: Connection, items: Sequence[Note]) -> list[str]:
        calls.append(len(items))
        if len(calls) == 3:
            raise OperationalError("INSERT", {}, DRIVER_ERRORS[database.dialect]("the disk is full"))
        return add(connection, items)

    await database.batch(add, [("taken", 0)])
    results = await database.batch(perform, [("a", 1), ("b", 2), ("taken", 3)])
    assert results[:2] == ["a", "b"]
    assert isinstance(results[2], IntegrityError)
    assert calls == [3, 1, 1, 1, 1, 1]
    assert await database.read(names) == {"taken", "a", "b"}


async def test_commits_that_never_get_an_answer_end_as_unavailable_for_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        await failing_commits(database, broken, committed=False, times=1_000)
        with pytest.raises(StorageUnavailableError, match="the connection went away"):
            await database.batch(keep, [("a", 1), ("b", 2)])
    assert await database.read(names) == set()
    assert await database.batch(keep, [("a", 1)]) == ["new"]


async def test_callers_that_are_cancelled_lose_nothing_and_leave_no_transaction_open(
    database: Database, database_url: str
) -> None:
    entered, release = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        entered.set()
        assert release.wait(10)
        add(connection, [("slow", 0)])

    running = asyncio.create_task(database.write(slow))
    assert await asyncio.to_thread(entered.wait, 10)
    queued = [asyncio.create_task(database.write(partial(add, items=[(f"queued-{n}", n)]))) for n in range(9)]
    await asyncio.sleep(0)
    for task in (running, *queued):
        task.cancel()
    results = await asyncio.gather(running, *queued, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    release.set()
    await asyncio.to_thread(database.close)
    async with Database(database_url, timeout_s=5) as again:
        assert await again.write(lambda c: add(c, [("after", 1)])) == ["after"]
        assert await again.read(names) == {"slow", "after"} | {f"queued-{n}" for n in range(9)}


async def test_callers_of_a_batcher_that_are_cancelled_lose_no_item(database: Database) -> None:
    batcher: Batcher[Note, str] = Batcher(
        lambda items: database.batch(keep, items), max_items=7, max_queue=100
    )
    tasks = [asyncio.create_task(batcher.submit((f"n{n}", n))) for n in range(40)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    await batcher.aclose()
    assert await database.read(names) == {f"n{n}" for n in range(40)}
    assert [result for n, result in enumerate(results) if n % 3] == ["new"] * 26
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::3])


async def test_a_database_that_others_have_locked_is_unavailable_for_a_while_only(
    database: Database, database_url: str
) -> None:
    await database.batch(add, [("before", 0)])
    with locked_out(database_url):
        async with asyncio.timeout(10):
            with pytest.raises(StorageUnavailableError):
                await database.write(lambda c: add(c, [("lost", 1)]))
            with pytest.raises(StorageUnavailableError):
                await database.batch(keep, [("lost-1", 1), ("lost-2", 2)])
            assert await database.read(names) == {"before"}
    assert await database.batch(add, [("after", 1)]) == ["after"]
    assert await database.read(names) == {"before", "after"}


async def test_a_lock_that_is_let_go_in_time_is_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.02)
    async with Database(database_url, timeout_s=20) as database:
        await database.write(lambda c: c.exec_driver_sql("CREATE TABLE notes (name TEXT, number BIGINT)"))
        with locked_out(database_url):
            writing = asyncio.create_task(database.batch(add, [("a", 1)]))
            await asyncio.wait([writing], timeout=0.1)
            assert not writing.done()
        assert await writing == ["a"]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53100", "55P03", "57014"])
async def test_trouble_that_postgresql_reports_is_retried(postgres_url: str, sqlstate: str) -> None:
    tries = 0

    def work(connection: Connection) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"))
        return "done"

    async with Database(postgres_url, timeout_s=5) as database:
        assert await database.write(work) == "done"
    assert tries == 2


async def test_a_connection_that_postgresql_drops_is_replaced(postgres_url: str) -> None:
    tries = 0

    def work(connection: Connection, items: Sequence[str]) -> Sequence[str]:
        nonlocal tries
        tries += 1
        if tries == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return items

    async with Database(postgres_url, timeout_s=5) as database:
        assert await database.batch(work, ["a", "b"]) == ["a", "b"]
    assert tries == 2


async def test_connections_that_postgresql_drops_between_transactions_are_replaced(postgres_url: str) -> None:
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    drop = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    async with Database(postgres_url, timeout_s=5) as database:
        await database.write(create)
        await asyncio.gather(*(database.batch(keep, [(f"before-{n}", n)]) for n in range(8)))
        with admin.connect() as connection:
            connection.execute(drop)
        results = await asyncio.gather(*(database.batch(keep, [(f"after-{n}", n)]) for n in range(8)))
        assert results == [["new"]] * 8
    admin.dispose()


async def test_a_process_that_is_frozen_in_a_transaction_holds_nobody_up_for_ever(postgres_url: str) -> None:
    taken, thaw = threading.Event(), threading.Event()

    def freeze(connection: Connection) -> None:
        connection.exec_driver_sql("LOCK TABLE notes IN EXCLUSIVE MODE")
        taken.set()
        thaw.wait(30)

    async with Database(postgres_url, timeout_s=0.5) as frozen, Database(postgres_url, timeout_s=5) as other:
        await other.write(create)
        writing = asyncio.create_task(frozen.write(freeze))
        await asyncio.to_thread(taken.wait, 10)
        try:
            assert await other.batch(keep, [("a", 1)]) == ["new"]
        finally:
            thaw.set()
        await asyncio.wait([writing], timeout=30)
        with pytest.raises(StorageUnavailableError):
            await writing


async def test_two_transactions_that_wait_for_each_other_both_come_through(postgres_url: str) -> None:
    meet = threading.Barrier(2)
    tries = {"a": 0, "b": 0}

    def work(connection: Connection, first: str, second: str) -> None:
        tries[first] += 1
        add_one = text("UPDATE notes SET number = number + 1 WHERE name = :name")
        connection.execute(add_one, {"name": first})
        if tries[first] == 1:
            meet.wait(10)
        connection.execute(add_one, {"name": second})

    async with Database(postgres_url, timeout_s=20) as database:
        await database.write(lambda c: c.exec_driver_sql("CREATE TABLE notes (name TEXT, number BIGINT)"))
        await database.batch(add, [("a", 0), ("b", 0)])
        await asyncio.gather(
            database.write(lambda c: work(c, "a", "b")), database.write(lambda c: work(c, "b", "a"))
        )
        numbers = await database.read(lambda c: c.execute(text("SELECT number FROM notes")).scalars().all())
    assert numbers == [2, 2]
    assert sorted(tries.values()) == [1, 2]


async def test_a_sqlite_commit_is_synced_in_full_and_readers_cannot_write(sqlite_url: str) -> None:
    async with Database(sqlite_url, timeout_s=1) as database:

        def pragma(name: str) -> Callable[[Connection], Any]:
            return lambda c: c.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert await database.write(pragma("journal_mode")) == "wal"
        assert await database.write(pragma("synchronous")) == 2  # FULL
        with pytest.raises(StorageUnavailableError, match="readonly"):
            await database.read(lambda c: c.exec_driver_sql("CREATE TABLE t (x INTEGER)"))


async def test_without_sync_a_sqlite_commit_waits_for_no_disk_and_postgresql_is_refused(
    sqlite_url: str,
) -> None:
    async with Database(sqlite_url, timeout_s=1, sync="off") as database:
        assert await database.write(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar()) == 0
        assert await database.write(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
    with pytest.raises(ValueError, match="is for SQLite"):
        Database("postgresql+psycopg://nobody@127.0.0.1:1/none", timeout_s=1, sync="off")


async def test_a_database_told_to_hurry_gives_up_for_good_at_the_first_trouble(sqlite_url: str) -> None:
    def select_one(connection: Connection) -> Any:
        return connection.exec_driver_sql("SELECT 1").scalar()

    async with Database(sqlite_url, timeout_s=60) as database:
        database.hurry()
        assert await database.write(select_one) == 1  # without trouble all goes on
        with locked_out(sqlite_url), pytest.raises(StorageUnavailableError, match="locked"):
            await asyncio.wait_for(database.write(select_one), 10)
        with pytest.raises(StorageUnavailableError, match="stopping"):
            await database.write(select_one)


async def test_a_sqlite_transaction_that_may_write_holds_the_lock_from_its_start(sqlite_url: str) -> None:
    # A later upgrade would bypass the busy timeout.
    def refused(connection: Connection) -> str:
        file = connection.exec_driver_sql("PRAGMA database_list").one()
        other = sqlite3.connect(file.file, timeout=0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            return str(exc)
        finally:
            other.close()
        return "not refused"

    async with Database(sqlite_url, timeout_s=1) as database:
        assert await database.write(refused) == "database is locked"


def test_a_sqlite_file_is_served_by_one_process_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "LOCK_WAIT_S", 0)
    path = tmp_path / "held.db"
    holding = (
        "import sys; sys.path.insert(0, sys.argv[2]); from servicekit.db import Database;"
        "database = Database(sys.argv[1], timeout_s=1); print('held', flush=True); sys.stdin.read()"
    )
    root = str(Path(db.__file__).parent.parent)
    other = subprocess.Popen(
        [sys.executable, "-c", holding, f"sqlite:///{path}", root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageUnavailableError, match="served by another process"):
            Database(f"sqlite:///{path}", timeout_s=1)
    finally:
        other.kill()
        other.communicate(timeout=10)
    Database(f"sqlite:///{path}", timeout_s=1).close()


def test_a_child_process_does_not_inherit_the_hold_on_a_sqlite_file(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not 0: the kernel may tell the parent of an exec a moment before it has closed the child's files.
    monkeypatch.setattr(db, "LOCK_WAIT_S", 2)
    database = Database(sqlite_url, timeout_s=1)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    try:
        database.close()
        Database(sqlite_url, timeout_s=1).close()
        assert child.poll() is None
    finally:
        child.kill()
        child.communicate(timeout=10)


async def test_instants_keep_their_microseconds_and_the_database_has_a_clock(database: Database) -> None:
    times = Table("times", MetaData(), Column("at", Instant))
    at = datetime(2026, 11, 22, 21, 5, 7, 123_457, tzinfo=UTC)

    def work(connection: Connection) -> list[datetime | None]:
        times.metadata.create_all(connection)
        connection.execute(times.insert(), [{"at": at}, {"at": None}])
        return list(connection.execute(select(times.c.at).order_by(times.c.at.is_(None))).scalars())

    before = time.time()
    assert await database.write(work) == [at, None]
    now = await database.read(lambda c: c.execute(select(epoch_now())).scalar_one())
    assert before - 1 < now < time.time() + 1


def test_an_engine_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="use sqlite"):
        Database("mysql://localhost/x", timeout_s=1)
