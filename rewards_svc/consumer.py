"""Heard: events. The rewards service credits points for the orders that concern it; nobody has to ask it.

That only a member gets points is this service's own rule here: it hears of every order, and passes over those
of others. Told or heard, the effect is the same function, so an order that came both ways is credited once.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from rewards_svc.points import Outcome, credit_points
from rewards_svc.schemas import CreditPoints, Member
from rewards_svc.settings import Settings
from servicekit.bus import Bus
from servicekit.db import Database
from servicekit.participant import Participant, Skipped, Succeeded

STREAM = "ORDERS"
SUBJECT = "orders.created"
NOT_JOINED = Skipped("the customer has not joined rewards")


class Customer(Member):
    """Who ordered: a member of the programme, or not."""

    rewards_member: bool


class OrderCreated(CreditPoints):
    """What this service reads of the event: who spent how much, and whether that earns points."""

    # The command's example says nothing of membership.
    model_config = ConfigDict(json_schema_extra={})

    customer: Customer


class Credited(BaseModel):
    """What it tells of its success: the points of the order's entry, and on which balance."""

    balance_id: str
    points: int


def handle(connection: Connection, events: Sequence[OrderCreated]) -> list[Succeeded | Skipped]:
    """Credit each member's order, within the caller's transaction; one answer for each event, in order."""
    members = [event for event in events if event.customer.rewards_member]
    entries = iter(credit_points(connection, [event.to_credit() for event in members]))
    return [_credited(next(entries)) if event.customer.rewards_member else NOT_JOINED for event in events]


def takes_time(event: OrderCreated) -> bool:
    """Whether there is anything to do for it, which a simulated service takes its time for."""
    return event.customer.rewards_member


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
        takes_time=takes_time,
    )


def _credited(entry: Outcome) -> Succeeded:
    return Succeeded(Credited.model_validate(entry, from_attributes=True).model_dump())
