"""The four applications as their mains wire them, each on a SQLite file of its own, without a process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI

import email_svc.app
import email_svc.errors
import email_svc.settings
import rewards_svc.app
import rewards_svc.errors
import rewards_svc.points
import rewards_svc.settings
import warehouse_svc.app
import warehouse_svc.errors
import warehouse_svc.settings
import warehouse_svc.shipments
from email_svc.confirmations import record_confirmations
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import can_read
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import migrate
from servicekit.web import Health
from tests.checkout.world import open_world

ROOT = Path(email_svc.app.__file__).parent.parent
OPERATOR = "operator-token-0123"
CONDUCTOR = "conductor-token-0123"
CALLER = "shop-key-0123456789"
PACKAGES = {"email": "email_svc", "warehouse": "warehouse_svc", "rewards": "rewards_svc"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def open_app(name: str, folder: Path) -> AsyncIterator[FastAPI]:
    """One of the four, with the tokens above; callers of checkout need a key."""
    url = f"sqlite:///{folder / name}.db"
    async with AsyncExitStack() as stack:
        if name == "checkout":
            keys = f"shop:{CALLER}"
            world = await stack.enter_async_context(open_world(url, caller_keys=keys, default_wait_s=0.2))
            yield world.app
            return
        migrate(ROOT / PACKAGES[name], url)
        database = await stack.enter_async_context(Database(url, timeout_s=5))
        yield _OPENERS[name](database, url)


def _given(url: str, **more: Any) -> dict[str, Any]:
    return {
        "database_url": url,
        "operator_token": OPERATOR,
        "conductor_token": CONDUCTOR,
        "nats_url": "nats://127.0.0.1:1",
        **more,
    }


def _common(database: Database) -> dict[str, Any]:
    return {
        "database": database,
        "metrics": Metrics(),
        "health": Health(check=lambda: database.read(can_read)),
    }


def _batcher(database: Database, perform: Any) -> Batcher[Any, Any]:
    return Batcher(lambda commands: database.batch(perform, commands), max_items=100, max_queue=100)


def _email(database: Database, url: str) -> FastAPI:
    settings = email_svc.settings.Settings(**_given(url, smtp_url="null:"))
    return email_svc.app.create_app(
        email_svc.app.Deps(
            confirmations=_batcher(database, partial(record_confirmations, deliver=False)),
            wake=lambda: None,
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=email_svc.errors.catalogue(settings.base_url),
            settings=settings,
            **_common(database),
        )
    )


def _warehouse(database: Database, url: str) -> FastAPI:
    settings = warehouse_svc.settings.Settings(**_given(url, dev_skus=True))
    prepare = partial(warehouse_svc.shipments.prepare_shipments, rules=settings.stock_rules)
    return warehouse_svc.app.create_app(
        warehouse_svc.app.Deps(
            shipments=_batcher(database, prepare),
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=warehouse_svc.errors.catalogue(settings.base_url),
            settings=settings,
            **_common(database),
        )
    )


def _rewards(database: Database, url: str) -> FastAPI:
    settings = rewards_svc.settings.Settings(**_given(url))
    return rewards_svc.app.create_app(
        rewards_svc.app.Deps(
            credits=_batcher(database, rewards_svc.points.credit_points),
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=rewards_svc.errors.catalogue(settings.base_url),
            settings=settings,
            **_common(database),
        )
    )


_OPENERS = {"email": _email, "warehouse": _warehouse, "rewards": _rewards}
