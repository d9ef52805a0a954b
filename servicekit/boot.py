"""The first steps of every service's main: logs, crash points, schema, database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from servicekit import crashpoints
from servicekit.db import Database
from servicekit.logs import set_up_logging
from servicekit.migrate import ensure_migrated
from servicekit.settings import ServiceSettings


@asynccontextmanager
async def boot(package: Path, settings: ServiceSettings) -> AsyncIterator[Database]:
    """Open the service's database at its newest schema, and close it at the end.

    Raises MigrationError, or StorageUnavailableError if another process serves the same SQLite file.
    """
    prefix = str(settings.model_config["env_prefix"])
    set_up_logging(package.name, settings.log_level)
    crashpoints.arm(settings.crash_file)
    if settings.migrate == "auto":
        await ensure_migrated(package, prefix, settings.database_url)
    async with Database(settings.database_url, timeout_s=settings.database_timeout_s) as database:
        yield database


def can_read(connection: Connection) -> None:
    """A query for readiness checks: it raises if the database does not answer."""
    connection.execute(text("SELECT 1"))
