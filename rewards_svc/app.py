"""Told: the rewards service's REST routes. The conductor credits points; the operator reads balances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query
from prometheus_client import Counter
from sqlalchemy import Row

from rewards_svc import asyncapi, points
from rewards_svc.schemas import (
    Balance,
    BalanceLookup,
    Credited,
    CreditPoints,
    Effect,
    EffectPage,
    Entry,
    EntryPage,
)
from rewards_svc.settings import Settings
from servicekit.auth import Authenticator
from servicekit.batching import Batcher
from servicekit.commands import BATCH, MAX_BYTES, Answer, Commands, add_command_routes
from servicekit.crashpoints import reach
from servicekit.db import Database
from servicekit.fields import NO_CONTROL_CHARACTERS
from servicekit.metrics import Metrics
from servicekit.paging import decode_cursor, encode_cursor
from servicekit.problems import Catalogue, ProblemError
from servicekit.web import BEARER, Health, answers, create_service_app

Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=200)]
BalanceId = Annotated[str, Path(max_length=64, pattern=NO_CONTROL_CHARACTERS)]
BALANCES = "/balances"
Limit = Annotated[int, Query(ge=1, le=1000, description="The size of the page.")]


@dataclass(frozen=True)
class Deps:
    """Everything the application works with."""

    database: Database
    credits: Batcher[points.Credit, points.Outcome]
    auth: Authenticator
    catalogue: Catalogue
    metrics: Metrics
    health: Health
    settings: Settings


def create_app(deps: Deps) -> FastAPI:
    """The rewards service's application."""
    app = create_service_app(
        title="Duet rewards",
        description="Keeps points balances: one entry for each order of a member.",
        version="1",
        catalogue=deps.catalogue,
        metrics=deps.metrics,
        health=deps.health,
        settings=deps.settings,
        asyncapi=asyncapi.document,
        max_body_bytes_at={f"{BALANCES}{BATCH}": MAX_BYTES},
    )
    _add_command(app, deps)
    _add_reading(app, deps)
    return app


def _add_command(app: FastAPI, deps: Deps) -> None:
    credited = Counter("points_entries", "Entries made.", ["repeated"], registry=deps.metrics.registry)

    async def carry_out(commands: Sequence[CreditPoints]) -> Sequence[points.Outcome | Exception]:
        return await deps.credits.submit_all([command.to_credit() for command in commands])

    def answer(outcome: points.Outcome | Exception) -> Answer:
        if isinstance(outcome, Exception):
            raise outcome
        reach("rewards.after-commit")
        credited.labels(str(outcome.repeated).lower()).inc()
        body = {
            "order_id": outcome.order_id,
            "balance_id": outcome.balance_id,
            "points": outcome.points,
            "balance": outcome.balance,
        }
        return Answer(200 if outcome.repeated else 201, body)

    commands = Commands(
        BALANCES,
        CreditPoints,
        Credited,
        ("credit_points", "credit_points_together"),
        "Credit one order's points to its member's balance, which is opened if there is none. Idempotent.",
        carry_out,
        answer,
    )
    add_command_routes(app, commands, deps.catalogue, deps.auth, "conductor")


def _add_reading(app: FastAPI, deps: Deps) -> None:
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
    }

    @app.post(
        "/balances/lookup",
        operation_id="look_up_balance",
        responses=_errors(
            deps,
            "not-found",
            "malformed-json",
            "unsupported-media-type",
            "content-too-large",
            "request-timeout",
        ),
        **operator,
    )
    async def look_up_balance(lookup: BalanceLookup) -> Balance:
        """Find a member's balance by address."""
        return _balance(await deps.database.read(lambda c: points.balance_of(c, lookup.email)))

    @app.get(
        "/balances/{balance_id}",
        operation_id="get_balance",
        responses=_errors(deps, "not-found"),
        **operator,
    )
    async def get_balance(balance_id: BalanceId) -> Balance:
        """One balance."""
        return _balance(await deps.database.read(lambda c: points.balance(c, balance_id)))

    @app.get(
        "/balances/{balance_id}/entries",
        operation_id="list_entries",
        responses=_errors(deps, "not-found"),
        **operator,
    )
    async def list_entries(balance_id: BalanceId, cursor: Cursor = None, limit: Limit = 500) -> EntryPage:
        """A balance's entries, oldest first."""
        _balance(await deps.database.read(lambda c: points.balance(c, balance_id)))
        rows, following = await _page(deps.database, cursor, limit, balance_id)
        listed = [Entry(order_id=row.order_id, points=row.points, at=row.at) for row in rows]
        return EntryPage(entries=listed, next=following)

    @app.get("/effects", operation_id="list_effects", responses=_errors(deps), **operator)
    async def list_effects(cursor: Cursor = None, limit: Limit = 500) -> EffectPage:
        """The orders that have an entry. Only a read from the start of a quiet system is complete."""
        rows, following = await _page(deps.database, cursor, limit)
        return EffectPage(effects=[Effect(order_id=row.order_id, at=row.at) for row in rows], next=following)


async def _page(
    database: Database, cursor: str | None, limit: int, balance_id: str | None = None
) -> tuple[Sequence[Row[Any]], str | None]:
    after = decode_cursor(cursor, int) if cursor else 0
    rows = await database.read(lambda c: points.entries_after(c, after, limit, balance_id))
    return rows, encode_cursor(rows[-1].seq) if len(rows) == limit else None


def _balance(row: Row[Any] | None) -> Balance:
    if row is None:
        raise ProblemError("not-found", "There is no such balance.")
    return Balance(balance_id=row.balance_id, points=row.points, opened_at=row.opened_at)


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
