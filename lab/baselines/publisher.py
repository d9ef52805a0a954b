"""The publisher of a tutorial: the order is committed, then its event is published; nothing joins the two.

Its 202 means that the order is stored. An event that cannot be published is logged and forgotten, as one is
that a killed process never came to: there is no outbox that would publish it later. It hears of no outcome.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import nats.errors
from fastapi import FastAPI, HTTPException, Request, Response

from lab.baselines.book import Book
from lab.baselines.calls import SERVICES, commands
from lab.baselines.events import encode_event
from lab.baselines.models import Checkout, Order, Step
from lab.baselines.serving import add_health
from lab.baselines.store import OrderStore

log = logging.getLogger(__name__)

Publish = Callable[[bytes], Awaitable[object]]


def publish_with(publish: Publish, store: OrderStore, book: Book | None) -> FastAPI:
    """An application that stores orders in `store` and tells of each by `publish` (raises nats errors)."""
    app = FastAPI(title="A tutorial's publisher")
    add_health(app)

    @app.post("/checkouts", status_code=202, response_model=Checkout)
    async def place_order(request: Request, order: Order) -> Response:
        order_id = str(uuid4())
        if book is not None:
            book.note(order_id, request.headers.get("idempotency-key", ""))
        checkout = _begun(order_id, order).model_dump_json()
        await store.insert(order_id, checkout)
        try:
            await publish(encode_event(order_id, order))
        except (nats.errors.Error, OSError) as error:
            log.error("the event of order %s was not published: %r", order_id, error)
        return Response(checkout, 202, media_type="application/json")

    @app.get("/checkouts/{order_id}", response_model=Checkout)
    async def get_order(order_id: str) -> Response:
        checkout = await store.find(order_id)
        if checkout is None:
            raise HTTPException(404, "there is no such order")
        return Response(checkout, media_type="application/json")

    return app


def _begun(order_id: str, order: Order) -> Checkout:
    asked = commands(order_id, order)
    pending = Step(status="pending", attempts=0)
    return Checkout(
        order_id=order_id,
        style="choreography",
        status="in_progress",
        accepted_at=datetime.now(UTC),
        completed_at=None,
        steps={name: pending if name in asked else Step.skipped() for name in SERVICES},
        **order.told,
    )
