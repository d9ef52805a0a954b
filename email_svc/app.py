"""Told: the e-mail service's REST routes. The conductor has orders confirmed; the operator reads."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from prometheus_client import Counter, Gauge

from email_svc import asyncapi, confirmations
from email_svc.schemas import Confirmation, Effect, EffectPage, OrderId, Recorded, SendConfirmation
from email_svc.settings import Settings
from servicekit.auth import Authenticator
from servicekit.batching import Batcher
from servicekit.commands import BATCH, MAX_BYTES, Answer, Commands, add_command_routes
from servicekit.crashpoints import reach
from servicekit.db import Database, StorageUnavailableError
from servicekit.metrics import Metrics
from servicekit.paging import decode_cursor, encode_cursor
from servicekit.problems import Catalogue, ProblemError
from servicekit.web import BEARER, Health, answers, create_service_app

Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=200)]
EMAILS = "/emails"
Limit = Annotated[int, Query(ge=1, le=1000, description="The size of the page.")]


@dataclass(frozen=True)
class Deps:
    """Everything the application works with; `wake` tells whoever delivers that something is due."""

    database: Database
    confirmations: Batcher[confirmations.Confirmation, confirmations.Recorded]
    wake: Callable[[], None]
    auth: Authenticator
    catalogue: Catalogue
    metrics: Metrics
    health: Health
    settings: Settings


def create_app(deps: Deps) -> FastAPI:
    """The e-mail service's application."""
    app = create_service_app(
        title="Duet e-mail",
        description="Sends order confirmations: one for each order.",
        version="1",
        catalogue=deps.catalogue,
        metrics=deps.metrics,
        health=deps.health,
        settings=deps.settings,
        asyncapi=asyncapi.document,
        max_body_bytes_at={f"{EMAILS}{BATCH}": MAX_BYTES},
    )
    _add_command(app, deps)
    _add_reading(app, deps)
    _watch_undelivered(deps)
    return app


def _add_command(app: FastAPI, deps: Deps) -> None:
    counted = Counter(
        "email_confirmations", "Confirmations asked for.", ["repeated"], registry=deps.metrics.registry
    )

    async def carry_out(
        commands: Sequence[SendConfirmation],
    ) -> Sequence[confirmations.Recorded | Exception]:
        return await deps.confirmations.submit_all([command.to_confirmation() for command in commands])

    def answer(recorded: confirmations.Recorded | Exception) -> Answer:
        if isinstance(recorded, Exception):
            raise recorded
        reach("email.after-commit")
        if not recorded.repeated:
            deps.wake()
        counted.labels(str(recorded.repeated).lower()).inc()
        body = {"order_id": recorded.order_id, "delivery": recorded.delivery}
        return Answer(200 if recorded.repeated else 201, body)

    commands = Commands(
        EMAILS,
        SendConfirmation,
        Recorded,
        ("send_confirmation", "send_confirmations"),
        "Record one order's confirmation durably; its delivery follows. Idempotent: the first body wins.",
        carry_out,
        answer,
    )
    add_command_routes(app, commands, deps.catalogue, deps.auth, "conductor")


def _add_reading(app: FastAPI, deps: Deps) -> None:
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
    }

    @app.get(
        "/emails/{order_id}",
        operation_id="get_confirmation",
        responses=_errors(deps, "not-found"),
        **operator,
    )
    async def get_confirmation(order_id: OrderId) -> Confirmation:
        """One order's confirmation, and how its delivery stands."""
        row = await deps.database.read(lambda c: confirmations.confirmation(c, order_id))
        if row is None:
            raise ProblemError("not-found", "There is no confirmation of such an order.")
        return Confirmation(
            order_id=row.order_id,
            delivery=row.delivery,
            to=row.recipient,
            recorded_at=row.recorded_at,
            attempts=row.attempts,
            delivered_at=row.delivered_at,
            reason=row.reason,
        )

    @app.get("/effects", operation_id="list_effects", responses=_errors(deps), **operator)
    async def list_effects(cursor: Cursor = None, limit: Limit = 500) -> EffectPage:
        """The orders that have a confirmation. Only a read from the start of a quiet system is complete."""
        after = decode_cursor(cursor, int) if cursor else 0
        rows = await deps.database.read(lambda c: confirmations.confirmations_after(c, after, limit))
        effects = [Effect(order_id=row.order_id, at=row.recorded_at) for row in rows]
        return EffectPage(effects=effects, next=encode_cursor(rows[-1].seq) if len(rows) == limit else None)


def _watch_undelivered(deps: Deps) -> None:
    registry = deps.metrics.registry
    count = Gauge("undelivered_emails", "Confirmations that wait for delivery.", registry=registry)
    age = Gauge("undelivered_emails_oldest_seconds", "The age of the oldest of them.", registry=registry)

    async def refresh() -> None:
        waiting = oldest_s = float("nan")
        # Without the database the other figures matter all the more.
        with suppress(StorageUnavailableError):
            waiting, oldest_s = await deps.database.read(confirmations.undelivered)
        count.set(waiting)
        age.set(oldest_s)

    if deps.settings.server is not None:  # else nothing is meant to be delivered
        deps.metrics.refreshers.append(refresh)


def _errors(deps: Deps, *slugs: str) -> dict[int | str, dict[str, Any]]:
    return answers(
        deps.catalogue,
        *slugs,
        "bad-request",
        "unauthorized",
        "forbidden",
        "validation-error",
        "overloaded",
        "storage-unavailable",
    )
