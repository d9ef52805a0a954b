"""Fills a conductor's database with completed orders: real ones that are multiplied by SQL.

Only whole rows of finished orders are copied, whatever columns there are, under fresh ids that sort before
all others, as those of older orders do, and without an idempotency key. It wants the database's service to be
stopped, and refuses a template that is not completed.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from lab.bench.children import BenchError

TEMPLATES = 500  # at most: their rows differ as those of so many customers do
BATCH = 50_000  # rows in one transaction
BUSY_TIMEOUT_S = 10.0
COPIED = "copied"
OWN = ("order_id", "idempotency_key", "fingerprint", "accepted_at", "completed_at")


def fill(path: Path, size: int) -> None:
    """Leaves exactly `size` completed orders in the SQLite file. Raises BenchError.

    One order a millisecond was accepted before the first real one; each took as long as its template did.
    """
    try:
        with closing(_open(path)) as database:
            _keep_templates(database, min(TEMPLATES, size))
            known: int = database.execute("SELECT count(*) FROM orders").fetchone()[0]
            _multiply(database, known, size - known)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise BenchError(f"cannot fill {path} with {size} orders: {error}") from error


def newest(path: Path) -> str:
    """The highest order id in the file. Raises BenchError."""
    try:
        with closing(_open(path)) as database:
            return str(database.execute("SELECT max(order_id) FROM orders").fetchone()[0])
    except sqlite3.Error as error:
        raise BenchError(f"cannot read {path}: {error}") from error


def take_back(path: Path, after: str) -> None:
    """Leaves only orders up to the id `after`: those that a measurement has added go. Raises BenchError."""
    try:
        with closing(_open(path)) as database:
            database.execute("DELETE FROM orders WHERE order_id > ?", (after,))
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise BenchError(f"cannot put {path} back: {error}") from error


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def _keep_templates(database: sqlite3.Connection, count: int) -> None:
    database.execute(
        "DELETE FROM orders WHERE order_id NOT IN (SELECT order_id FROM orders ORDER BY order_id LIMIT ?)",
        (count,),
    )
    unfinished: int = database.execute("SELECT count(*) FROM orders WHERE status <> 'completed'").fetchone()[
        0
    ]
    if unfinished:
        raise BenchError(f"{unfinished} of the orders to be multiplied are not completed")
    database.execute(f"CREATE TEMP TABLE {COPIED} AS SELECT * FROM orders")  # noqa: S608 - our own name
    if not database.execute(f"SELECT count(*) FROM {COPIED}").fetchone()[0]:  # noqa: S608 - our own name
        raise BenchError("there is no completed order to be multiplied")


def _multiply(database: sqlite3.Connection, templates: int, missing: int) -> None:
    """An id is a UUID of version 7: the millisecond first, then what makes it unique."""
    names = [row[1] for row in database.execute("PRAGMA table_info(orders)") if row[1] not in OWN]
    others = ", ".join(names)
    first_ms: int = database.execute(f"SELECT min(accepted_at) / 1000 FROM {COPIED}").fetchone()[0]  # noqa: S608
    insert = f"""
        WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last),
             made AS (SELECT n, :first_ms - :missing + n AS ms FROM numbers)
        INSERT INTO orders ({", ".join(OWN)}, {others})
        SELECT printf('%08x-%04x-7000-8000-%012x', made.ms >> 16, made.ms & 65535, made.n), NULL, NULL,
               made.ms * 1000, made.ms * 1000 + template.completed_at - template.accepted_at, {others}
        FROM made JOIN {COPIED} AS template ON template.rowid = 1 + made.n % :templates
    """  # noqa: S608 - the names of the table's own columns
    for first in range(0, missing, BATCH):
        bounds = {"first": first, "last": min(first + BATCH, missing) - 1}
        database.execute(insert, {**bounds, "first_ms": first_ms, "missing": missing, "templates": templates})
