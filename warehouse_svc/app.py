"""Told: the warehouse service's REST routes.

The conductor has shipments prepared; the operator advances them, and keeps the stock.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from prometheus_client import Counter, Gauge
from sqlalchemy import Row

from servicekit.auth import Authenticator
from servicekit.batching import Batcher
from servicekit.commands import BATCH, MAX_BYTES, Answer, Commands, add_command_routes
from servicekit.crashpoints import reach
from servicekit.db import Database, StorageUnavailableError
from servicekit.metrics import Metrics
from servicekit.paging import decode_cursor, encode_cursor
from servicekit.problems import Catalogue
from servicekit.web import BEARER, Health, answers, create_service_app
from warehouse_svc import asyncapi, schemas, shipments
from warehouse_svc.backorders import set_on_hand
from warehouse_svc.errors import SkuRefusedError
from warehouse_svc.settings import Settings
from warehouse_svc.stock import Level, read_level

log = logging.getLogger("warehouse_svc")

Cursor = Annotated[str | None, Query(description="`next` of the page before.", max_length=200)]
Limit = Annotated[int, Query(ge=1, le=1000, description="The size of the page.")]
SHIPMENTS = "/shipments"
BODY = ("malformed-json", "unsupported-media-type", "content-too-large", "request-timeout")


@dataclass(frozen=True)
class Deps:
    """Everything the application works with."""

    database: Database
    shipments: Batcher[shipments.PrepareShipment, shipments.Prepared]
    auth: Authenticator
    catalogue: Catalogue
    metrics: Metrics
    health: Health
    settings: Settings


def create_app(deps: Deps) -> FastAPI:
    """The warehouse service's application."""
    app = create_service_app(
        title="Duet warehouse",
        description="Prepares shipments: one for each order, from stock that is allocated all or nothing.",
        version="1",
        catalogue=deps.catalogue,
        metrics=deps.metrics,
        health=deps.health,
        settings=deps.settings,
        asyncapi=asyncapi.document,
        max_body_bytes_at={f"{SHIPMENTS}{BATCH}": MAX_BYTES},
    )
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
    }
    _add_command(app, deps)
    _add_shipments(app, deps, operator)
    _add_stock(app, deps, operator)
    _count_shipments_at_scrape(deps)
    return app


def _add_command(app: FastAPI, deps: Deps) -> None:
    outcomes = Counter(
        "shipment_commands", "Commands by outcome.", ["outcome"], registry=deps.metrics.registry
    )

    async def carry_out(
        commands: Sequence[schemas.PrepareShipment],
    ) -> Sequence[shipments.Prepared | Exception]:
        return await deps.shipments.submit_all([command.to_preparation() for command in commands])

    def answer(prepared: shipments.Prepared | Exception) -> Answer:
        if isinstance(prepared, SkuRefusedError):
            outcomes.labels("refused").inc()
        if isinstance(prepared, Exception):
            raise prepared
        reach("warehouse.after-commit")
        made = "backordered" if prepared.state == shipments.BACKORDERED else "prepared"
        outcomes.labels("repeated" if prepared.repeated else made).inc()
        body = {"order_id": prepared.order_id, "shipment_id": prepared.shipment_id, "state": prepared.state}
        return Answer(200 if prepared.repeated else 201, body)

    commands = Commands(
        SHIPMENTS,
        schemas.PrepareShipment,
        schemas.Prepared,
        ("prepare_shipment", "prepare_shipments"),
        "Prepare one order's shipment, or backorder it if its stock is not there. Idempotent.",
        carry_out,
        answer,
        ("sku-refused",),
    )
    add_command_routes(app, commands, deps.catalogue, deps.auth, "conductor")


def _add_shipments(app: FastAPI, deps: Deps, operator: dict[str, Any]) -> None:
    rules = deps.settings.stock_rules

    @app.get(
        "/shipments/{order_id}",
        operation_id="get_shipment",
        responses=_errors(deps, "not-found"),
        **operator,
    )
    async def get_shipment(order_id: schemas.OrderId) -> schemas.Shipment:
        """One order's shipment."""
        return _shipment(await deps.database.read(lambda c: shipments.read_shipment(c, order_id)))

    @app.post(
        "/shipments/{order_id}/advance",
        operation_id="advance_shipment",
        responses=_errors(deps, *BODY, "not-found", "shipment-state"),
        **operator,
    )
    async def advance_shipment(order_id: schemas.OrderId, step: schemas.AdvanceShipment) -> schemas.Shipment:
        """Bring a shipment to its next state; to repeat its present one changes nothing."""
        return _shipment(
            await deps.database.write(lambda c: shipments.advance_shipment(c, order_id, step.to, rules))
        )

    @app.get("/effects", operation_id="list_effects", responses=_errors(deps), **operator)
    async def list_effects(cursor: Cursor = None, limit: Limit = 500) -> schemas.EffectPage:
        """The orders that have a shipment. Only a read from the start of a quiet system is complete."""
        after = decode_cursor(cursor, int) if cursor else 0
        rows = await deps.database.read(lambda c: shipments.shipments_after(c, after, limit))
        return schemas.EffectPage(
            effects=[schemas.Effect(order_id=row.order_id, at=row.prepared_at) for row in rows],
            next=encode_cursor(rows[-1].seq) if len(rows) == limit else None,
        )


def _add_stock(app: FastAPI, deps: Deps, operator: dict[str, Any]) -> None:
    rules = deps.settings.stock_rules

    # A SKU may hold a slash; encoded or not, it arrives as one.
    @app.get("/stock/{sku:path}", operation_id="get_stock", responses=_errors(deps, "not-found"), **operator)
    async def get_stock(sku: schemas.Sku) -> schemas.Stock:
        """The stock of one SKU; of one never seen, what it will start with."""
        level = await deps.database.read(lambda c: read_level(c, sku, rules))
        return schemas.Stock(**_quantities(sku, level))

    @app.put(
        "/stock/{sku:path}",
        operation_id="set_stock",
        responses=_errors(deps, *BODY, "not-found", "stock-allocated", "sku-refused"),
        **operator,
    )
    async def set_stock(sku: schemas.Sku, stock: schemas.SetStock) -> schemas.Restocked:
        """Set a SKU's on-hand quantity, and fill backorders from it, oldest first. Safe to repeat."""
        level, filled = await set_on_hand(deps.database, sku, stock.on_hand, rules)
        return schemas.Restocked(**_quantities(sku, level), filled=filled)


def _count_shipments_at_scrape(deps: Deps) -> None:
    gauge = Gauge("shipments", "Shipments by state.", ["state"], registry=deps.metrics.registry)

    async def refresh() -> None:
        try:
            counts = await deps.database.read(shipments.count_by_state)
        except StorageUnavailableError as exc:
            # The other figures matter most just then; a gauge without samples says that this one is unknown.
            log.warning("shipments cannot be counted", extra={"error": str(exc)})
            gauge.clear()
            return
        for state, count in counts.items():
            gauge.labels(state).set(count)

    deps.metrics.refreshers.append(refresh)


def _quantities(sku: str, level: Level) -> dict[str, Any]:
    return {
        "sku": sku,
        "on_hand": level.on_hand,
        "allocated": level.allocated,
        "available": level.available,
    }


def _shipment(row: Row[Any]) -> schemas.Shipment:
    return schemas.Shipment.model_validate(row, from_attributes=True)


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
