"""The checkout service without a process, on SQLite unless a test asks for both engines."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest

from checkout.journal import Journal
from checkout.watching import Watchers
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.checkout.dancing import everybody_takes_part
from tests.checkout.world import PACKAGE, World, open_world

Opening = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture(scope="session")
def empty_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file, to be copied: migrations take longer than most tests."""
    path = tmp_path_factory.mktemp("journal") / "empty.db"
    migrate(PACKAGE, f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(tmp_path: Path, empty_journal: Path) -> str:
    """The SQLAlchemy URL of a SQLite file with an empty journal."""
    return f"sqlite:///{shutil.copy(empty_journal, tmp_path / 'checkout.db')}"


@pytest.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    """One replica with the usual settings."""
    async with open_world(sqlite_url) as opened:
        yield opened


@pytest.fixture
def opening(sqlite_url: str) -> Opening:
    """Open a replica with settings of the test's own."""
    return partial(open_world, sqlite_url)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The journal's database on each engine."""
    migrate(PACKAGE, database_url)
    async with Database(database_url, timeout_s=5) as opened:
        yield opened


@pytest.fixture
async def journal(database: Database) -> AsyncIterator[Journal]:
    """A journal on each engine, which nobody watches."""
    opened = Journal(database, Watchers())
    yield opened
    await opened.aclose()


@pytest.fixture
async def dance(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world in which all three are known to take part, and no pass is repeated unless something asks."""
    monkeypatch.setattr("checkout.resume.TRIAL_EVERY_S", 0.05)
    async with opening(resume_min_s=60, default_wait_s=20) as world:
        await everybody_takes_part(world)
        yield world
