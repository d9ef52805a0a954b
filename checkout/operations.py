"""Told by the operator: list orders, retry what was refused, give up what cannot be done."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Response

from checkout.deps import Deps, OrderId
from checkout.events import order_created
from checkout.journal import UnknownOrderError
from checkout.orders import Order, OrderStatus, Progress, WrongStatusError
from checkout.schemas import Checkout, CheckoutPage, represent, to_json
from servicekit.bus import BusUnavailableError
from servicekit.paging import decode_cursor, encode_cursor
from servicekit.problems import ProblemError
from servicekit.web import BEARER, answers

DEFAULT_LIMIT = 100
MAX_LIMIT = 500


def add_operator_routes(app: FastAPI, deps: Deps) -> None:
    """Add the routes that want the operator's token."""
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
        "response_class": Response,
    }
    common = (
        "bad-request",
        "unauthorized",
        "forbidden",
        "validation-error",
        "overloaded",
        "storage-unavailable",
    )
    changing = (
        *common,
        "not-found",
        "order-status",
        "content-too-large",
        "request-timeout",
        "unsupported-media-type",
    )

    @app.get(
        "/checkouts",
        operation_id="list_orders",
        responses={
            200: {"model": CheckoutPage, "description": "A page of orders, oldest first"},
            **answers(deps.catalogue, *common),
        },
        **operator,
    )
    async def list_orders(
        status: Annotated[OrderStatus | None, Query(description="Only these.")] = None,
        older_than_s: Annotated[
            float, Query(ge=0, le=1e9, description="Only orders accepted at least so many seconds ago.")
        ] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
        cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    ) -> Response:
        """All callers' orders."""
        after = decode_cursor(cursor, str) if cursor else ""
        found = await deps.journal.page(status, older_than_s, after, limit)
        following = encode_cursor(found[-1][0].order_id) if len(found) == limit else None
        return _json({"checkouts": [represent(*each) for each in found], "next": following})

    @app.post(
        "/checkouts/{order_id}/retry",
        operation_id="retry_order",
        responses={
            200: {"model": Checkout, "description": "Its failed steps are pending again"},
            **answers(deps.catalogue, *changing, "broker-unavailable"),
        },
        **operator,
    )
    async def retry_order(order_id: OrderId) -> Response:
        """Try the failed steps of an order again; the others are left as they are.

        An order that needs attention is in progress again. One that is completed stays so: a step of it that
        failed is of a participant who joined later.
        """
        try:
            order, progress = await deps.journal.retry(order_id)
        except (UnknownOrderError, WrongStatusError) as exc:
            raise _problem(exc) from None
        if progress.status is OrderStatus.COMPLETED:  # which no pass takes up
            progress = await deps.participants.awaited_by(progress)
            try:
                await deps.emit(order_created(order, progress.retries))
            except BusUnavailableError:
                raise ProblemError("broker-unavailable", "The order's event could not be emitted.") from None
        else:
            deps.kick_resumer()
        return _one(order, progress)

    @app.post(
        "/checkouts/{order_id}/abandon",
        operation_id="abandon_order",
        responses={
            200: {"model": Checkout, "description": "What had not come about is given up"},
            **answers(deps.catalogue, *changing),
        },
        **operator,
    )
    async def abandon_order(order_id: OrderId) -> Response:
        """Give an order up: its unfinished steps become `failed`, with the reason `abandoned`."""
        try:
            return _one(*await deps.journal.abandon(order_id))
        except (UnknownOrderError, WrongStatusError) as exc:
            raise _problem(exc) from None


def _problem(exc: UnknownOrderError | WrongStatusError) -> ProblemError:
    if isinstance(exc, UnknownOrderError):
        return ProblemError("not-found", "There is no such order.")
    return ProblemError("order-status", f"Not now: {exc}.")


def _one(order: Order, progress: Progress) -> Response:
    return _json(represent(order, progress))


def _json(document: object) -> Response:
    return Response(to_json(document), media_type="application/json")
