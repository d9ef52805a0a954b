"""The conductor of a tutorial: FastAPI, one `httpx.AsyncClient`, `asyncio.gather`, and no journal.

It promises less than the real one: its 201 means that the three services have answered, and nothing remembers
the order. A call that fails is not repeated: the client gets a 502, though the other calls may have had their
effect, or have it yet.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from lab.baselines.book import open_book
from lab.baselines.calls import CALL_FAILED, Service, call, commands, read_services
from lab.baselines.models import Checkout, Order, Step
from lab.baselines.serving import add_health

PROBLEM = "application/problem+json"


def conduct_with(client: httpx.AsyncClient, settings: Mapping[str, str], prefix: str) -> FastAPI:
    """An application that places orders through `client`, which it closes when it ends.

    `settings` holds what `read_services` wants (`KeyError` if not), and may hold PREFIX_BOOK, the file of the
    lab's book.
    """
    services = read_services(settings, prefix)
    book = open_book(settings.get(f"{prefix}_BOOK"))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(title="A tutorial's conductor", lifespan=lifespan)
    add_health(app)

    @app.post("/checkouts", status_code=201, response_model=Checkout)
    async def place_order(request: Request, order: Order) -> Checkout | JSONResponse:
        order_id, accepted_at = str(uuid4()), datetime.now(UTC)
        if book is not None:
            book.note(order_id, request.headers.get("idempotency-key", ""))
        asked = commands(order_id, order)
        try:
            performed = await asyncio.gather(
                *(_perform(client, services[name], path, command) for name, (path, command) in asked.items())
            )
        except CALL_FAILED as error:
            return _call_failed(error)
        steps = dict(zip(asked, performed, strict=True))
        steps.setdefault("rewards", Step.skipped())
        return Checkout(
            order_id=order_id,
            style="orchestration",
            status="completed",
            accepted_at=accepted_at,
            completed_at=datetime.now(UTC),
            steps=steps,
            **order.told,
        )

    return app


async def _perform(client: httpx.AsyncClient, service: Service, path: str, command: dict[str, Any]) -> Step:
    result = await call(client, service, path, command)
    return Step(status="succeeded", attempts=1, result=result, finished_at=datetime.now(UTC))


def _call_failed(error: Exception) -> JSONResponse:
    told = {
        "type": "/problems/checkout/call-failed",
        "title": "A service could not be called",
        "status": 502,
        "detail": f"The order was not placed: {type(error).__name__}.",
    }
    return JSONResponse(told, 502, media_type=PROBLEM)
