"""Told: the invoice service's REST routes. The conductor has invoices issued; the operator reads them."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Response
from prometheus_client import Counter

from invoice_svc import asyncapi, invoices
from invoice_svc.schemas import Effect, EffectPage, Invoice, Issued, IssueInvoice
from invoice_svc.settings import Settings
from servicekit.auth import Authenticator
from servicekit.batching import Batcher
from servicekit.crashpoints import reach
from servicekit.db import Database
from servicekit.fields import NO_CONTROL_CHARACTERS
from servicekit.metrics import Metrics
from servicekit.paging import decode_cursor, encode_cursor
from servicekit.problems import Catalogue, ProblemError
from servicekit.web import BEARER, Health, answers, create_service_app

Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=200)]
OrderId = Annotated[str, Path(max_length=64, pattern=NO_CONTROL_CHARACTERS)]
Limit = Annotated[int, Query(ge=1, le=1000, description="The size of the page.")]


@dataclass(frozen=True)
class Deps:
    """Everything the application works with."""

    database: Database
    bills: Batcher[invoices.Bill, invoices.Outcome]
    auth: Authenticator
    catalogue: Catalogue
    metrics: Metrics
    health: Health
    settings: Settings


def create_app(deps: Deps) -> FastAPI:
    """The invoice service's application."""
    app = create_service_app(
        title="Duet invoice",
        description="Issues invoices: one for each order, numbered without gaps.",
        version="1",
        catalogue=deps.catalogue,
        metrics=deps.metrics,
        health=deps.health,
        settings=deps.settings,
        asyncapi=asyncapi.document,
    )
    _add_command(app, deps)
    _add_reading(app, deps)
    return app


def _add_command(app: FastAPI, deps: Deps) -> None:
    issued = Counter("invoices_issued", "Invoices issued.", ["repeated"], registry=deps.metrics.registry)

    @app.post(
        "/invoices",
        operation_id="issue_invoice",
        status_code=201,
        response_model=Issued,
        responses={
            200: {"model": Issued, "description": "Repeated: the stored outcome"},
            **_errors(
                deps, "malformed-json", "unsupported-media-type", "content-too-large", "request-timeout"
            ),
        },
        dependencies=[Depends(deps.auth.require("conductor"))],
        openapi_extra=BEARER,
    )
    async def issue_invoice(command: IssueInvoice, response: Response) -> Issued:
        """Issue one order's invoice under the next number. Idempotent."""
        outcome = await deps.bills.submit(command.to_bill())
        reach("invoice.after-commit")
        issued.labels(str(outcome.repeated).lower()).inc()
        response.status_code = 200 if outcome.repeated else 201
        return Issued(order_id=outcome.order_id, number=outcome.number)


def _add_reading(app: FastAPI, deps: Deps) -> None:
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
    }

    @app.get(
        "/invoices/{order_id}",
        operation_id="get_invoice",
        responses=_errors(deps, "not-found"),
        **operator,
    )
    async def get_invoice(order_id: OrderId) -> Invoice:
        """One order's invoice."""
        row = await deps.database.read(lambda c: invoices.invoice_of(c, order_id))
        if row is None:
            raise ProblemError("not-found", "There is no invoice of such an order.")
        return Invoice.model_validate(row, from_attributes=True)

    @app.get("/effects", operation_id="list_effects", responses=_errors(deps), **operator)
    async def list_effects(cursor: Cursor = None, limit: Limit = 500) -> EffectPage:
        """The orders that have an invoice. Only a read from the start of a quiet system is complete."""
        after = decode_cursor(cursor, int) if cursor else 0
        rows = await deps.database.read(lambda c: invoices.invoices_after(c, after, limit))
        listed = [Effect(order_id=row.order_id, number=row.number, at=row.issued_at) for row in rows]
        return EffectPage(effects=listed, next=encode_cursor(rows[-1].number) if len(rows) == limit else None)


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
