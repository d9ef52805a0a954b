"""The conductor of a tutorial: FastAPI, one `httpx.AsyncClient`, `asyncio.gather`, and no journal.

It promises less than the real one: its 201 means that the three services have answered, and nothing
remembers the order. A call that fails is not repeated: its step says `failed`.
Served by `uvicorn --factory lab.baselines.naive_httpx:create_app`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI

from lab.baselines.models import Checkout, Order, Step

TIMEOUT_S = 5.0


def create_app() -> FastAPI:
    """The application on httpx's own connection pool; addresses and tokens come from NAIVE_* variables.

    The pool's limits are httpx's own: its cost grows with its connections, so higher ones bring nothing.
    """
    return conduct_with(httpx.AsyncClient(timeout=TIMEOUT_S), os.environ)


def conduct_with(client: httpx.AsyncClient, settings: Mapping[str, str]) -> FastAPI:
    """An application that places orders through `client`, which it closes when it ends.

    `settings` holds NAIVE_EMAIL_URL, NAIVE_WAREHOUSE_URL, NAIVE_REWARDS_URL and a NAIVE_*_TOKEN for each.
    """
    email, warehouse, rewards = (
        (settings[f"NAIVE_{name}_URL"], {"Authorization": f"Bearer {settings[f'NAIVE_{name}_TOKEN']}"})
        for name in ("EMAIL", "WAREHOUSE", "REWARDS")
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(title="A tutorial's conductor", lifespan=lifespan)

    async def perform(service: tuple[str, dict[str, str]], path: str, command: dict[str, Any]) -> Step:
        url, headers = service
        try:
            response = await client.post(url + path, json=command, headers=headers)
            response.raise_for_status()
            result = response.json()
            return Step(status="succeeded", attempts=1, result=result, finished_at=datetime.now(UTC))
        except (httpx.HTTPError, ValueError) as error:  # pydantic's ValidationError is a ValueError
            return Step(status="failed", attempts=1, reason=type(error).__name__)

    async def skip() -> Step:
        return Step(status="skipped", attempts=0, reason="the customer has not joined rewards")

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/checkouts", status_code=201)
    async def place_order(order: Order) -> Checkout:
        order_id, accepted_at = str(uuid4()), datetime.now(UTC)
        buyer = {"name": order.customer.name, "email": order.customer.email}
        price = {"currency": order.currency, "total_minor": order.total_minor}
        lines = [line.model_dump() for line in order.lines]
        ship_to = order.ship_to.model_dump()
        ship_to["name"] = ship_to["name"] or order.customer.name

        confirmation = {"order_id": order_id, "customer": buyer, **price, "lines": lines, "ship_to": ship_to}
        parcel = [{"sku": line.sku, "quantity": line.quantity} for line in order.lines]
        shipment = {"order_id": order_id, "lines": parcel, "ship_to": ship_to}
        balance = {"order_id": order_id, "customer": buyer, **price}
        mailed, shipped, credited = await asyncio.gather(
            perform(email, "/emails", confirmation),
            perform(warehouse, "/shipments", shipment),
            perform(rewards, "/balances", balance) if order.customer.rewards_member else skip(),
        )
        steps = {"email": mailed, "warehouse": shipped, "rewards": credited}
        failed = any(step.status == "failed" for step in steps.values())
        return Checkout(
            order_id=order_id,
            status="needs_attention" if failed else "completed",
            customer=order.customer,
            lines=order.lines,
            ship_to=order.ship_to,
            accepted_at=accepted_at,
            completed_at=None if failed else datetime.now(UTC),
            steps=steps,
            **price,
        )

    return app
