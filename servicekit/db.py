"""Storage on SQLite or PostgreSQL through one interface; a commit is on disk before anybody hears of it.

Work is a plain function of a SQLAlchemy connection. It runs as one transaction on a thread of its own,
out of reach of cancellation, and may run more than once: it must be idempotent, since a lost answer to
COMMIT is unknown, not failed. Refuses a SQLite file that another process serves.
"""

import asyncio
import fcntl
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from sqlalchemy import BigInteger, Connection, Engine, Float, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")
R = TypeVar("R")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# SQLite waits this long inside one attempt; further attempts follow until the database's own timeout.
BUSY_TIMEOUT_S = 1.0
LOCK_WAIT_S = 15.0
MAX_ATTEMPTS = 20
# A caller waits this many times the database's timeout: for its turn, its attempts, and the last one's end.
ANSWER_FACTOR = 4
POSTGRES_THREADS = 4
SQLITE_READERS = 4


class StorageUnavailableError(Exception):
    """The database is locked, full, gone or restarting. Nothing is known to have been written."""


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole microseconds since 1970 on both engines."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: object) -> int | None:
        """A datetime to microseconds."""
        return None if value is None else (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: object) -> datetime | None:
        """Microseconds to a datetime."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


class epoch_now(FunctionElement[float]):
    """The database's own clock: seconds since 1970 as a float."""

    type = Float()
    inherit_cache = True


@compiles(epoch_now, "sqlite")
def _epoch_now_sqlite(element: epoch_now, compiler: SQLCompiler, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(epoch_now, "postgresql")
def _epoch_now_postgresql(element: epoch_now, compiler: SQLCompiler, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


INSERTS: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
"""An INSERT that knows ON CONFLICT, by dialect (the two read alike)."""


def insert_for(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    return INSERTS[connection.dialect.name](table)


def is_trouble(exc: BaseException) -> bool:
    """Whether an error is the infrastructure's (may pass by itself), not the item's."""
    if isinstance(exc, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    if isinstance(exc, DBAPIError) and exc.connection_invalidated:
        return True
    # SQLite reports a broken file or disk as a bare DatabaseError, whose subclasses blame the item.
    return type(exc) is DatabaseError


class Database:
    """One service's database. Close it, and what was submitted before is done.

    `sync="off"`, of SQLite only, is for measuring: a commit is then on disk whenever the system writes it.
    """

    def __init__(self, url: str, *, timeout_s: float, sync: Literal["full", "off"] = "full") -> None:
        self._timeout_s = timeout_s
        self._hurry = False
        self._gave_up = False
        self._resources = ExitStack()
        parsed = make_url(url)
        self.dialect = parsed.get_backend_name()
        if self.dialect == "sqlite":
            path = Path(parsed.database or "").absolute()
            self._hold_alone(path)
            self._writer = _sqlite_engine(path, writing=True, sync=sync)
            self._reader = _sqlite_engine(path, writing=False, sync=sync)
            _switch_to_wal(self._writer, path.parent)
            writers, readers = 1, SQLITE_READERS
        elif self.dialect == "postgresql":
            if sync != "full":
                raise ValueError(f"sync {sync} is for SQLite: PostgreSQL syncs as its server is told")
            self._writer = self._reader = _postgres_engine(url, timeout_s)
            writers = readers = POSTGRES_THREADS
        else:
            raise ValueError(f"database {self.dialect}: use sqlite:// or postgresql+psycopg://")
        self._write_threads = ThreadPoolExecutor(writers, "writer")
        self._read_threads = ThreadPoolExecutor(readers, "reader")
        # Each thread keeps its connection: taking one from the pool costs as much as a small transaction.
        self._held = threading.local()
        self._connections: set[Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def hurry(self) -> None:
        """The service is about to stop: at the first trouble from now on nothing more is tried."""
        self._hurry = True

    def close(self) -> None:
        """Finish running transactions, close all connections and let go of the file."""
        self._write_threads.shutdown(wait=True)
        self._read_threads.shutdown(wait=True)
        for connection in self._connections:
            connection.close()
        self._writer.dispose()
        self._reader.dispose()
        self._resources.close()

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` as one transaction and return what it returns, once the commit is on disk.

        Raises StorageUnavailableError after the timeout, or what `work` raised (nothing is written then).
        """
        return await self._on(self._write_threads, lambda: self._transact(work))

    async def batch(
        self, perform: Callable[[Connection, Sequence[T]], Sequence[R]], items: Sequence[T]
    ) -> Sequence[R | Exception]:
        """Run `perform` on all items in one transaction: one result each, in order.

        If it raises for an item's sake, the group is rolled back and redone item by item, each in its own
        savepoint, and the items at fault get their exception as their result.
        Raises StorageUnavailableError for all of them.
        """
        return await self._on(self._write_threads, lambda: self._batch(perform, items))

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a reading function outside the writers' way. Raises StorageUnavailableError."""
        return await self._on(self._read_threads, lambda: self._query(query))

    async def _on(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        # Leaner than run_in_executor, which chains two futures; and a cancelled caller stops nothing here.
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = call()
            except BaseException as exc:
                loop.call_soon_threadsafe(_fail, done, exc)
            else:
                loop.call_soon_threadsafe(_finish, done, result)

        threads.submit(run)
        try:
            async with asyncio.timeout(self._timeout_s * ANSWER_FACTOR):
                return await done
        except TimeoutError:  # a hung server: the job may still come to an end, unheard
            raise StorageUnavailableError("the database gave no answer") from None

    def _query(self, query: Callable[[Connection], T]) -> T:
        for attempt in (1, 2):  # the first may meet a connection that has died since it was last used
            try:
                connection = self._connection(self._reader)
                with connection.begin():
                    return query(connection)
            except Exception as exc:
                if not is_trouble(exc):
                    raise
                self._let_go()
                if attempt == 2:
                    raise StorageUnavailableError(_first_line(exc)) from exc
        raise AssertionError("unreachable")

    def _batch(
        self, perform: Callable[[Connection, Sequence[T]], Sequence[R]], items: Sequence[T]
    ) -> Sequence[R | Exception]:
        try:
            return self._transact(lambda connection: perform(connection, items))
        except StorageUnavailableError:
            raise
        except Exception:  # an item's fault, or a race with another process: find out
            return self._transact(lambda connection: _one_by_one(connection, perform, items))

    def _transact(self, work: Callable[[Connection], T]) -> T:
        deadline = time.monotonic() + self._timeout_s
        if self._gave_up:
            raise StorageUnavailableError("the service is stopping, and the database was in trouble")
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                connection = self._connection(self._writer)
                with connection.begin():
                    return work(connection)
            except Exception as exc:
                if not is_trouble(exc):
                    raise
                self._let_go()
                pause_s = random.uniform(0, min(0.01 * 2**attempt, 0.5))  # noqa: S311 - jitter, no secret
                self._gave_up = self._hurry
                if self._gave_up or attempt == MAX_ATTEMPTS or time.monotonic() + pause_s >= deadline:
                    raise StorageUnavailableError(_first_line(exc)) from exc
                time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _connection(self, engine: Engine) -> Connection:
        connection: Connection | None = getattr(self._held, "connection", None)
        if connection is None:
            connection = self._held.connection = engine.connect()
            self._connections.add(connection)
        return connection

    def _let_go(self) -> None:
        """After trouble this thread starts anew, with a connection that is known to work."""
        connection: Connection | None = getattr(self._held, "connection", None)
        self._held.connection = None
        if connection is not None:
            self._connections.discard(connection)
            connection.invalidate()
            connection.close()

    def _hold_alone(self, path: Path) -> None:
        # Not inherited by child processes: Python opens files with O_CLOEXEC.
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        self._resources.callback(os.close, lock)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    self._resources.close()
                    raise StorageUnavailableError(f"{path} is served by another process: stop it") from None
                time.sleep(0.05)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():  # else its caller was cancelled
        future.set_result(result)


def _fail(future: asyncio.Future[T], exc: BaseException) -> None:
    if not future.done():
        future.set_exception(exc)


def _one_by_one(
    connection: Connection, perform: Callable[[Connection, Sequence[T]], Sequence[R]], items: Sequence[T]
) -> list[R | Exception]:
    results: list[R | Exception] = []
    for item in items:
        try:
            with connection.begin_nested():
                results.extend(perform(connection, [item]))
        except Exception as exc:
            if is_trouble(exc):
                raise
            results.append(exc)
    return results


def _sqlite_engine(path: Path, *, writing: bool, sync: str) -> Engine:
    size = 1 if writing else SQLITE_READERS
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # else a logged traceback would carry customers' data
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute(f"PRAGMA synchronous={sync}")  # NORMAL loses acknowledged commits at a power cut
        cursor.execute("PRAGMA foreign_keys=ON")
        if not writing:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    # A deferred transaction that upgrades to a writing one bypasses the busy timeout.
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.execute(begin)
        except sqlite3.OperationalError as exc:
            raise OperationalError(begin, None, exc) from exc

    return engine


def _switch_to_wal(engine: Engine, folder: Path) -> None:
    # SQLite deletes its rollback journal then, but does not fsync the folder: on a file system that may lose
    # the removal, a power cut would bring the old journal back over what has been accepted since.
    with engine.connect():
        pass
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _postgres_engine(url: str, timeout_s: float) -> Engine:
    milliseconds = int(timeout_s * 1000)
    return create_engine(
        url,
        pool_size=2 * POSTGRES_THREADS,
        max_overflow=0,
        hide_parameters=True,
        pool_timeout=timeout_s,
        pool_use_lifo=True,
        connect_args={
            "connect_timeout": max(2, int(timeout_s)),
            "tcp_user_timeout": 2 * milliseconds,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            # The last: of a replica that is frozen in a transaction, the locks are freed.
            "options": f"-c lock_timeout={milliseconds} -c statement_timeout={2 * milliseconds}"
            f" -c idle_in_transaction_session_timeout={milliseconds}",
        },
    )


def _first_line(exc: BaseException) -> str:
    return str(exc).partition("\n")[0]
