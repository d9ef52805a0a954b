"""Heard: events. The e-mail service confirms every order that it hears of; nobody has to ask it.

Told or heard, the effect is the same function, so an order that came both ways is confirmed once.
"""

from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import Connection

from email_svc.confirmations import record_confirmations
from email_svc.schemas import Delivery, SendConfirmation
from email_svc.settings import Settings
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant, Succeeded

STREAM = "ORDERS"
SUBJECT = "orders.created"


class OrderCreated(SendConfirmation):
    """What this service reads of the event: whatever a confirmation says."""


class Confirmed(BaseModel):
    """What it tells of its success: the confirmation is recorded, and how far its delivery had come."""

    delivery: Delivery


def handle(connection: Connection, events: Sequence[OrderCreated], *, deliver: bool) -> list[Succeeded]:
    """Confirm each order, within the caller's transaction; one answer for each, in order."""
    commands = [event.to_confirmation() for event in events]
    recorded = record_confirmations(connection, commands, deliver=deliver)
    return [Succeeded(Confirmed.model_validate(each, from_attributes=True).model_dump()) for each in recorded]


def participant(
    bus: Bus, database: Database, settings: Settings, registry: CollectorRegistry, wake: Callable[[], None]
) -> Participant[OrderCreated]:
    """Its part in the dance; `wake` tells whoever delivers that something is due."""
    return Participant(
        bus,
        database,
        settings,
        stream=STREAM,
        subject=SUBJECT,
        model=OrderCreated,
        handle=partial(handle, deliver=settings.server is not None),
        registry=registry,
        handled=wake,
    )
