"""A database with the notes table, on each engine."""

from collections.abc import AsyncIterator

import pytest

from servicekit import db
from servicekit.db import Database
from tests.storage import notes


@pytest.fixture
async def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Its patience is short, so that the tests of running out of it are too."""
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.02)
    async with Database(database_url, timeout_s=0.5) as database:
        await database.write(notes.create)
        yield database
