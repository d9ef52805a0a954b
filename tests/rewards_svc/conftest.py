"""The rewards service on a migrated database, without a process."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import rewards_svc
from rewards_svc.app import Deps, create_app
from rewards_svc.errors import catalogue
from rewards_svc.points import credit_points
from rewards_svc.settings import Settings
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import can_read
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import migrate
from servicekit.web import Health

PACKAGE = Path(rewards_svc.__file__).parent
OPERATOR = {"Authorization": "Bearer operator-token-0123"}
CONDUCTOR = {"Authorization": "Bearer conductor-token-0123"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    migrate(PACKAGE, database_url)
    async with Database(database_url, timeout_s=5) as database:
        yield database


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    """The service's database on SQLite."""
    migrate(PACKAGE, sqlite_url)
    async with Database(sqlite_url, timeout_s=5) as database:
        yield database


@pytest.fixture
async def client(sqlite: Database, sqlite_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application on SQLite."""
    settings = Settings(
        database_url=sqlite_url,
        operator_token="operator-token-0123",
        conductor_token="conductor-token-0123",
        nats_url="nats://127.0.0.1:1",
    )
    app = create_app(
        Deps(
            database=sqlite,
            credits=Batcher(lambda c: sqlite.batch(credit_points, c), max_items=100, max_queue=100),
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=Metrics(),
            health=Health(check=lambda: sqlite.read(can_read)),
            settings=settings,
        )
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://rewards") as client:
        yield client
