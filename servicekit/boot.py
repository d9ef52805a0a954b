"""The first steps of every service's main: logs, crash points, schema, database, work in the background."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from servicekit import crashpoints
from servicekit.db import Database
from servicekit.logs import set_up_logging
from servicekit.migrate import ensure_migrated
from servicekit.settings import ServiceSettings

log = logging.getLogger(__name__)

# A library may swallow a cancellation: ask again, but not for ever.
ENDING_TRIES = 3
ENDING_WAIT_S = 2.0


@asynccontextmanager
async def boot(package: Path, settings: ServiceSettings) -> AsyncIterator[Database]:
    """Open the service's database at its newest schema, and close it at the end.

    Raises MigrationError, or StorageUnavailableError if another process serves the same SQLite file.
    """
    prefix = str(settings.model_config["env_prefix"])
    set_up_logging(package.name, settings.log_level)
    if names := settings.set_for_measuring:
        log.warning("these settings are for measuring only", extra={"settings": ", ".join(names)})
    crashpoints.arm(settings.crash_file)
    if settings.migrate == "auto":
        await ensure_migrated(package, prefix, settings.database_url)
    async with Database(
        settings.database_url, timeout_s=settings.database_timeout_s, sync=settings.database_sync
    ) as database:
        yield database


async def in_background(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which never ends by itself, beside the service until the stack closes."""
    task = asyncio.create_task(work)
    task.add_done_callback(_report_failure)

    async def end() -> None:
        for _ in range(ENDING_TRIES):
            task.cancel()
            await asyncio.wait([task], timeout=ENDING_WAIT_S)
            if task.done():
                return

    stack.push_async_callback(end)


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.critical("work in the background has ended", exc_info=task.exception())


def can_read(connection: Connection) -> None:
    """A query for readiness checks: it raises if the database does not answer."""
    connection.execute(text("SELECT 1"))
