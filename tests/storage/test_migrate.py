"""Migrations: run once, by whoever comes first, and by nobody where the schema is new enough."""

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import create_engine, inspect, text

import rewards_svc
from servicekit import migrate
from servicekit.migrate import MigrationError, current_version, ensure_migrated, newest_version

PACKAGE = Path(rewards_svc.__file__).parent

FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None
def upgrade() -> None:
    op.create_table("things", sa.Column("name", sa.Text, primary_key=True))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0002", "0001"
def upgrade() -> None:
    op.add_column("things", sa.Column("size", sa.BigInteger))
"""
BROKEN = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0003", "0002"
def upgrade() -> None:
    op.create_table("half", sa.Column("name", sa.Text, primary_key=True))
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "things_svc" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0001_things.py").write_text(FIRST)
    return folder.parent


@contextmanager
def migrating(database_url: str) -> Iterator[None]:
    """Hold the lock that a migration holds."""
    engine = create_engine(database_url)
    if engine.dialect.name == "sqlite":
        with open(f"{engine.url.database}.migrate.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        return
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": migrate.ADVISORY_LOCK})
        yield
    engine.dispose()


def tables(database_url: str) -> set[str]:
    engine = create_engine(database_url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_a_database_goes_from_nothing_to_the_newest_version_step_by_step(
    package: Path, database_url: str
) -> None:
    assert (current_version(database_url), newest_version(package)) == (None, "0001")
    for _ in range(2):
        migrate.migrate(package, database_url)
        assert current_version(database_url) == "0001"
    (package / "migrations" / "0002_size.py").write_text(SECOND)
    assert newest_version(package) == "0002"
    migrate.migrate(package, database_url)
    assert current_version(database_url) == "0002"


def test_a_migration_that_fails_leaves_the_version_before_it(package: Path, database_url: str) -> None:
    (package / "migrations" / "0002_size.py").write_text(SECOND)
    (package / "migrations" / "0003_broken.py").write_text(BROKEN)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            migrate.migrate(package, database_url)
        assert current_version(database_url) == "0002"
        assert "half" not in tables(database_url)


async def test_two_services_that_start_at_once_migrate_once(database_url: str) -> None:
    await asyncio.gather(*(ensure_migrated(PACKAGE, "REWARDS_", database_url) for _ in range(2)))
    assert current_version(database_url) == newest_version(PACKAGE)
    assert {"balances", "entries"} <= tables(database_url)


async def test_a_migration_waits_until_another_one_is_over(package: Path, database_url: str) -> None:
    with migrating(database_url):
        waiting = asyncio.create_task(asyncio.to_thread(migrate.migrate, package, database_url))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        assert current_version(database_url) is None
    async with asyncio.timeout(20):
        await waiting
    assert current_version(database_url) == "0001"


async def test_a_schema_that_is_new_enough_costs_no_child_process(
    package: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a child process")

    migrate.migrate(package, database_url)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    await ensure_migrated(package, "THINGS_", database_url)


async def test_what_went_wrong_in_the_child_process_is_told(package: Path, sqlite_url: str) -> None:
    with pytest.raises(MigrationError, match="not a service of this project"):
        await ensure_migrated(package, "THINGS_", sqlite_url)


def test_a_service_without_migrations_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(migrate, "__file__", str(tmp_path / "servicekit" / "migrate.py"))
    (tmp_path / "plain_svc").mkdir()
    (tmp_path / "plain_svc" / "service.toml").write_text('name = "plain"\nport = 8005\n')
    assert migrate._main(["plain_svc"]) == 0
    (tmp_path / "plain_svc" / "migrations").mkdir()
    assert migrate._main(["plain_svc"]) == 2
    assert "PLAIN_DATABASE_URL" in capsys.readouterr().err
