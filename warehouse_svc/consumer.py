"""Heard: events. The warehouse prepares a shipment for every order that it hears of; nobody has to ask it.

Told or heard, the effect is the same function, so an order that came both ways is shipped once. It refuses
what it would refuse a caller.
"""

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import Connection

from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant, Refusal, Succeeded
from warehouse_svc.errors import SkuRefusedError
from warehouse_svc.schemas import PrepareShipment, State
from warehouse_svc.settings import Settings
from warehouse_svc.shipments import prepare_shipments
from warehouse_svc.stock import StockRules

STREAM = "ORDERS"
SUBJECT = "orders.created"


class OrderCreated(PrepareShipment):
    """What this service reads of the event: what goes where, no price and no e-mail address."""


class Prepared(BaseModel):
    """What it tells of its success; `backordered` is one too."""

    shipment_id: str
    state: State


def handle(
    connection: Connection, events: Sequence[OrderCreated], *, rules: StockRules
) -> list[Succeeded | Refusal]:
    """Prepare each order's shipment, within the caller's transaction; one answer for each, in order."""
    made = prepare_shipments(connection, [event.to_preparation() for event in events], rules)
    return [
        Refusal(each.slug)
        if isinstance(each, SkuRefusedError)
        else Succeeded(Prepared.model_validate(each, from_attributes=True).model_dump())
        for each in made
    ]


def participant(
    bus: Bus, database: Database, settings: Settings, registry: CollectorRegistry
) -> Participant[OrderCreated]:
    """Its part in the dance."""
    return Participant(
        bus,
        database,
        settings,
        stream=STREAM,
        subject=SUBJECT,
        model=OrderCreated,
        handle=partial(handle, rules=settings.stock_rules),
        registry=registry,
    )
