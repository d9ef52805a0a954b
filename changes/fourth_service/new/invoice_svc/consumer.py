"""Heard: events. The invoice service invoices every order that it hears of; nobody has to ask it.

Told or heard, the effect is the same function, so an order that came both ways is invoiced once.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from invoice_svc.invoices import issue_invoices
from invoice_svc.schemas import IssueInvoice
from invoice_svc.settings import Settings
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant, Succeeded

STREAM = "ORDERS"
SUBJECT = "orders.created"


class OrderCreated(IssueInvoice):
    """What this service reads of the event: who bought for how much."""

    model_config = ConfigDict(json_schema_extra={})


class Invoiced(BaseModel):
    """What it tells of its success: the number of the order's invoice."""

    number: int


def handle(connection: Connection, events: Sequence[OrderCreated]) -> list[Succeeded]:
    """Invoice each order, within the caller's transaction; one answer for each event, in order."""
    issued = issue_invoices(connection, [event.to_bill() for event in events])
    return [Succeeded(Invoiced(number=outcome.number).model_dump()) for outcome in issued]


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
        handle=handle,
        registry=registry,
    )
