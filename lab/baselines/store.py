"""The naive publisher's table of orders: SQLite, one commit an order, on disk before anybody hears of it.

It is not careless about its own data: the losses come from what happens between this table and the broker.
"""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Self

BUSY_TIMEOUT_S = 5.0
CREATE = "CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, checkout TEXT NOT NULL)"


class OrderStore:
    """The orders' representations as JSON, by order id. An asynchronous context: it ends its thread."""

    def __init__(self, file: Path) -> None:
        self._thread = ThreadPoolExecutor(1, "orders")
        self._connection = sqlite3.connect(
            file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(CREATE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def insert(self, order_id: str, checkout: str) -> None:
        """Store one order; it is on disk on return. Raises `sqlite3.Error`."""
        await self._run("INSERT INTO orders VALUES (?, ?)", order_id, checkout)

    async def find(self, order_id: str) -> str | None:
        """One order's representation, if there is such an order. Raises `sqlite3.Error`."""
        return await self._run("SELECT checkout FROM orders WHERE order_id = ?", order_id)

    async def _run(self, statement: str, *values: str) -> str | None:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._execute, statement, values
        )

    def _execute(self, statement: str, values: tuple[str, ...]) -> str | None:
        with closing(self._connection.execute(statement, values)) as cursor:
            row = cursor.fetchone()
        return None if row is None else str(row[0])
