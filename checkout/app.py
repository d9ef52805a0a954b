"""Told: the public API. It validates, lets the style place the order, and answers as the client prefers."""

import json
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from uuid_utils import uuid7

from checkout import asyncapi
from checkout.deps import Deps, OrderId, find_order
from checkout.event_stream import add_event_stream
from checkout.idempotency import KEY_PATTERN, MAX_KEY, fingerprint, parse_key
from checkout.operations import add_operator_routes
from checkout.orders import Order, Progress
from checkout.participant_routes import add_participant_routes
from checkout.preferences import Preferences, parse_preferences
from checkout.schemas import Checkout, CheckoutRequest, represent, to_json
from checkout.store import Accepted
from servicekit.auth import Caller
from servicekit.problems import ProblemError
from servicekit.shortcut import add_shortcut
from servicekit.web import OPTIONAL_BEARER, answers, create_service_app

RETRY_AFTER_S = 1
MAY_PLACE = ("caller", "operator")
STYLES = {f"style={name}".encode(): name for name in ("orchestration", "choreography")}
EXPOSED_HEADERS = ("Location", "Preference-Applied", "Retry-After", "Idempotency-Replayed")

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=f"Makes a repeat safe: at most {MAX_KEY} printable ASCII characters.",
        json_schema_extra={"pattern": KEY_PATTERN},
    ),
]
PreferHeader = Annotated[
    str | None, Header(alias="Prefer", description="`wait=N` (seconds), `respond-async` (RFC 7240).")
]


def create_app(deps: Deps) -> FastAPI:
    """The checkout service's application."""
    app = create_service_app(
        title="Duet checkout",
        description="One checkout in two styles of collaboration: orchestrated, and choreographed.",
        version="1",
        catalogue=deps.catalogue,
        metrics=deps.metrics,
        health=deps.health,
        settings=deps.settings,
        asyncapi=asyncapi.document,
    )
    _add_placing(app, deps)
    _add_reading(app, deps)
    add_event_stream(app, deps)
    add_operator_routes(app, deps)
    add_participant_routes(app, deps)
    if origins := deps.settings.origins():
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID"],
            expose_headers=EXPOSED_HEADERS,
        )
    return app


def _add_placing(app: FastAPI, deps: Deps) -> None:
    caller_of = deps.auth.require(*MAY_PLACE)
    location = {"headers": {"Location": {"schema": {"type": "string"}, "description": "The order."}}}

    @app.post(
        "/checkouts",
        operation_id="place_order",
        openapi_extra=OPTIONAL_BEARER,
        status_code=201,
        response_class=Response,
        responses={
            201: {"model": Checkout, "description": "Accepted, and all steps are final", **location},
            202: {"model": Checkout, "description": "Accepted; some steps are still pending", **location},
            **answers(
                deps.catalogue,
                *("bad-request", "malformed-json", "idempotency-key-invalid", "unauthorized", "forbidden"),
                *("request-timeout", "content-too-large", "unsupported-media-type", "validation-error"),
                *("idempotency-key-reused", "overloaded", "storage-unavailable"),
            ),
        },
    )
    async def place_order(
        request: Request,
        body: CheckoutRequest,
        caller: Annotated[Caller, Depends(caller_of)],
        style: Annotated[
            Literal["orchestration", "choreography"] | None,
            Query(description="Default: the service's setting."),
        ] = None,
        idempotency_key: KeyHeader = None,
        prefer: PreferHeader = None,
    ) -> Response:
        """Accept an order, and wait a while for its steps. An accepted order is never lost."""
        return await _place(deps, request.headers, await request.body(), body, caller, style)

    async def take(headers: Headers, query: bytes, body: bytes) -> Response | None:
        if query and query not in STYLES:
            return None
        caller = deps.auth.admit(headers.get("authorization"), MAY_PLACE)
        try:
            valid = CheckoutRequest.model_validate_json(body)
        except ValidationError:
            return None
        return await _place(deps, headers, body, valid, caller, STYLES.get(query))

    add_shortcut(app, "place_order", take)


async def _place(
    deps: Deps, headers: Headers, sent: bytes, body: CheckoutRequest, caller: Caller, style: str | None
) -> Response:
    """Place an order as the request says: `sent` is the body as it came."""
    key = parse_key(headers.getlist("idempotency-key"))
    preferences = parse_preferences(headers.getlist("prefer"))
    print_ = fingerprint(json.loads(sent), style) if key is not None else None
    name = style or deps.settings.style
    order = body.to_order(str(uuid7()), name, caller.name, datetime.now(UTC))
    with deps.watchers.watching(order.order_id) as watch:
        accepted = await _placed(deps, order, key, print_)
        if accepted.progress is not None:
            deps.order_metrics.accepted.labels(name).inc()
            watch.tell(accepted.progress)
            wait_s = preferences.wait_or(deps.settings.default_wait_s)
            progress = await deps.watchers.final(watch, wait_s)
            return _accepted(order, progress, preferences)
    if accepted.fingerprint != print_:
        detail = "The key was used before, with another body or style."
        raise ProblemError("idempotency-key-reused", detail)
    deps.order_metrics.replayed.inc()
    wait_s = preferences.wait_or(deps.settings.default_wait_s)
    order, progress = await _watched(deps, accepted.order_id, caller, wait_s)
    return _accepted(order, progress, preferences, replayed=True)


async def _placed(deps: Deps, order: Order, key: str | None, fingerprint: str | None) -> Accepted:
    try:
        return await deps.styles[order.style].place_order(order, key, fingerprint)
    except ProblemError as problem:
        # A repeat adds no work: it is answered also when there is too much.
        earlier = (
            await deps.journal.by_key(order.caller, key) if key and problem.slug == "overloaded" else None
        )
        if earlier is None:
            raise
        return earlier


def _add_reading(app: FastAPI, deps: Deps) -> None:
    caller_of = deps.auth.require("caller", "operator")

    @app.get(
        "/checkouts/{order_id}",
        operation_id="get_order",
        openapi_extra=OPTIONAL_BEARER,
        response_class=Response,
        responses={
            200: {"model": Checkout, "description": "The order"},
            **answers(
                deps.catalogue,
                *("bad-request", "unauthorized", "forbidden", "not-found", "validation-error"),
                *("overloaded", "storage-unavailable"),
            ),
        },
    )
    async def get_order(
        request: Request,
        order_id: OrderId,
        caller: Annotated[Caller, Depends(caller_of)],
        prefer: PreferHeader = None,
    ) -> Response:
        """One order; with `Prefer: wait=N` once its steps are final, or after N seconds."""
        preferences = parse_preferences(request.headers.getlist("prefer"))
        order, progress = await _watched(deps, order_id, caller, preferences.wait_or(0))
        headers = {} if progress.is_final else {"Retry-After": str(RETRY_AFTER_S)}
        if applied := preferences.applied(answered_early=False):
            headers["Preference-Applied"] = applied
        return Response(to_json(represent(order, progress)), 200, headers, "application/json")


async def _watched(deps: Deps, order_id: str, caller: Caller, wait_s: float) -> tuple[Order, Progress]:
    # Register first, then read, so that nothing falls in between.
    with deps.watchers.watching(order_id) as watch:
        order, progress = await find_order(deps, order_id, caller)
        watch.tell(progress)
        return order, await deps.watchers.final(watch, wait_s)


def _accepted(
    order: Order, progress: Progress, preferences: Preferences, *, replayed: bool = False
) -> Response:
    headers = {"Location": f"/checkouts/{order.order_id}"}
    if not progress.is_final:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if applied := preferences.applied(answered_early=not progress.is_final):
        headers["Preference-Applied"] = applied
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    status = 201 if progress.is_final else 202
    return Response(to_json(represent(order, progress)), status, headers, "application/json")
