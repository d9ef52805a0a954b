"""What a durable conductor's SQLite file holds, read from outside and without writing.

A bench that asks the conductor itself would load what it measures. It refuses a file that it cannot read.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.bench.children import BenchError

COMPLETED = "completed"
IN_PROGRESS = "in_progress"
BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One order's status, and when it was completed, in seconds since 1970."""

    status: str
    completed_at: float | None


def count_unfinished(path: Path) -> int:
    """How many orders are in progress. Raises BenchError."""
    [[count]] = _read(path, f"SELECT count(*) FROM orders WHERE status = '{IN_PROGRESS}'")  # noqa: S608
    return int(count)


def read_stored(path: Path) -> dict[str, Stored]:
    """All orders by id. Raises BenchError."""
    rows = _read(path, "SELECT order_id, status, completed_at FROM orders")
    return {row[0]: Stored(row[1], None if row[2] is None else row[2] / 1e6) for row in rows}


def _read(path: Path, query: str) -> list[Any]:
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as database:
            return database.execute(query).fetchall()
    except sqlite3.Error as error:
        raise BenchError(f"cannot read {path}: {error}") from error
