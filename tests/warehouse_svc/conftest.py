"""The warehouse service on a migrated database, without a process."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

import warehouse_svc
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import can_read
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import migrate
from servicekit.web import Health
from tests.warehouse_svc import ledger
from warehouse_svc.app import Deps, create_app
from warehouse_svc.errors import catalogue
from warehouse_svc.settings import Settings
from warehouse_svc.shipments import Prepared, PrepareShipment, prepare_shipments

PACKAGE = Path(warehouse_svc.__file__).parent
OPERATOR = {"Authorization": "Bearer operator-token-0123"}
CONDUCTOR = {"Authorization": "Bearer conductor-token-0123"}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database of the warehouse; at the end of every test its tables must agree."""
    migrate(PACKAGE, database_url)
    async with Database(database_url, timeout_s=5) as database:
        yield database
        await database.read(ledger.check)


@pytest.fixture
async def client(database: Database, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, with 100 units of each SKU and the development SKUs."""
    settings = Settings(
        database_url=database_url,
        operator_token="operator-token-0123",
        conductor_token="conductor-token-0123",
        nats_url="nats://127.0.0.1:1",
        initial_stock=100,
        dev_skus=True,
    )
    prepare = partial(prepare_shipments, rules=settings.stock_rules)
    batcher: Batcher[PrepareShipment, Prepared] = Batcher(
        lambda commands: database.batch(prepare, commands), max_items=100, max_queue=100
    )
    app = create_app(
        Deps(
            database=database,
            shipments=batcher,
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=Metrics(),
            health=Health(check=lambda: database.read(can_read)),
            settings=settings,
        )
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://warehouse") as client:
        yield client
    await batcher.aclose()
