"""Bring databases to their newest schema, in a short-lived process, under a lock.

`python -m servicekit.migrate checkout email_svc` reads each service's `*_DATABASE_URL`.
Services call `ensure_migrated` before they serve: it starts that process only if the schema is behind,
so that a running service never carries Alembic in its memory.
"""

import asyncio
import fcntl
import os
import re
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from servicekit.settings import EXIT_BAD_SETTINGS

LOCK_TIMEOUT_S = 60
MIGRATION_TIMEOUT_S = 300
# Any constant will do: it names the migration lock among PostgreSQL's advisory locks.
ADVISORY_LOCK = 0x0D0E7


class MigrationError(Exception):
    """The schema could not be brought to its newest version."""


def newest_version(package: Path) -> str:
    """The highest revision in the package's migrations folder; they are named 0001_what.py."""
    names = [path.name for path in (package / "migrations").glob("[0-9]*.py")]
    return max(name.split("_")[0] for name in names)


def current_version(database_url: str) -> str | None:
    """The revision that the database stands at; None for an empty one."""
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return None
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return version
    finally:
        engine.dispose()


async def ensure_migrated(package: Path, prefix: str, database_url: str) -> None:
    """Migrate in a child process if the schema is behind. Raises MigrationError with the child's words."""
    try:
        current = await asyncio.to_thread(current_version, database_url)
    except DBAPIError as exc:
        raise MigrationError(f"{package.name}: cannot read the database's version: {exc.orig}") from exc
    if current == newest_version(package):
        return
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "servicekit.migrate",
        package.name,
        env={**os.environ, f"{prefix}DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(MIGRATION_TIMEOUT_S):
            output, _ = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise MigrationError(f"{package.name}: no end after {MIGRATION_TIMEOUT_S} s") from None
    if child.returncode != 0:
        raise MigrationError(output.decode(errors="replace").strip())


def migrate(package: Path, database_url: str) -> None:
    """Run the package's migrations on this database; a second runner waits for the first."""
    from alembic import command
    from alembic.config import Config

    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "alembic_env"))
    config.set_main_option("version_locations", str(package / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _begin_ourselves(engine)
    try:
        with _locked(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "heads")
    finally:
        engine.dispose()


def _begin_ourselves(engine: Engine) -> None:
    # Python's sqlite3 begins no transaction for DDL: a migration that is killed would leave half a schema.
    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            connection.commit()
            try:
                yield connection
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
                connection.commit()
        return
    with open(f"{engine.url.database}.migrate.lock", "w") as lock:
        _wait_for(lock)
        with engine.connect() as connection:
            yield connection
            connection.commit()


def _wait_for(lock: IO[str]) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise MigrationError(f"another migration holds {lock.name}") from None
            time.sleep(0.05)


def _main(names: list[str]) -> int:
    root = Path(__file__).parent.parent
    for name in names:
        package = root / name
        if not re.fullmatch(r"\w+", name) or not (package / "service.toml").exists():
            print(f"{name}: not a service of this project", file=sys.stderr)
            return EXIT_BAD_SETTINGS
        if not (package / "migrations").is_dir():
            print(f"{name}: no migrations, so nothing is done to its database", file=sys.stderr)
            continue
        prefix = tomllib.loads((package / "service.toml").read_text())["name"].upper()
        database_url = _database_url(f"{prefix}_DATABASE_URL")
        if database_url is None:
            print(f"{prefix}_DATABASE_URL: set it (or {prefix}_DATABASE_URL_FILE)", file=sys.stderr)
            return EXIT_BAD_SETTINGS
        if current_version(database_url) != newest_version(package):
            migrate(package, database_url)
    return 0


def _database_url(variable: str) -> str | None:
    if path := os.environ.get(f"{variable}_FILE"):
        return Path(path).read_text(encoding="utf-8").strip()
    return os.environ.get(variable)


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
