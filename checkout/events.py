"""The event that checkout emits, and what it reads of the outcomes that it hears.

`OrderCreated` is checkout's own contract, told to nobody in particular. It changes by addition only: a field
may be added, none is renamed, removed or given another meaning. An outcome's author is named by the channel
that it came on, which the broker lets nobody else use.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from checkout.orders import Order, Outcome, StepStatus
from servicekit import cloudevents
from servicekit.cloudevents import CloudEvent

SOURCE = "/checkout"
ORDER_CREATED = "duet.OrderCreated"
MAX_ATTEMPTS_TOLD = 1_000_000
# In bytes of JSON: what is told of a step is kept with the order, and shown to whoever asks for it.
MAX_OUTCOME = 32_768


class Customer(BaseModel):
    """Who ordered."""

    name: str
    email: str
    rewards_member: bool


class Line(BaseModel):
    """One line; the price is in minor units."""

    sku: str
    quantity: int
    unit_price_minor: int


class Address(BaseModel):
    """Where the goods go."""

    name: str
    line1: str
    line2: str | None
    city: str
    region: str | None
    postcode: str | None
    country: str


class OrderCreated(BaseModel):
    """An order has been accepted: everything that the order says. Amounts are in minor units."""

    order_id: str
    customer: Customer
    currency: str
    total_minor: int
    lines: list[Line]
    ship_to: Address
    accepted_at: datetime


def _showable(result: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        orjson.dumps(result)
    except TypeError:  # an integer of more than 64 bits, say
        raise PydanticCustomError("json", "cannot be written as JSON") from None
    return result


class OutcomeReported(BaseModel):
    """What checkout reads of an outcome. `attempts` are the tries that the participant tells of."""

    model_config = ConfigDict(extra="ignore")

    status: Literal["succeeded", "skipped", "failed"]
    result: Annotated[dict[str, Any] | None, AfterValidator(_showable)] = None
    reason: str | None = Field(None, max_length=2_000)
    attempts: Annotated[int, Field(ge=0, le=MAX_ATTEMPTS_TOLD)] = 0


class UnreadableOutcomeError(Exception):
    """A message on an outcome channel is no outcome."""


def order_created(order: Order, retry: int) -> bytes:
    """The event of one order, the same each time but for `retry`: how often an operator has asked again."""
    details: Mapping[str, Any] = {
        "order_id": order.order_id,
        "customer": order.customer,
        "currency": order.currency,
        "total_minor": order.total_minor,
        "lines": order.lines,
        "ship_to": order.ship_to,
        "accepted_at": order.accepted_at,
    }
    return cloudevents.encode(
        id=order.order_id,
        source=SOURCE,
        type=ORDER_CREATED,
        subject=order.order_id,
        time=order.accepted_at,
        data=details,
        retry=retry,
    )


def outcome_heard(channel: str, payload: bytes, at: datetime) -> Outcome:
    """The outcome in a message that came on `outcomes.<participant>`, as heard at `at`.

    Raises UnreadableOutcomeError, without the message's content.
    """
    if len(payload) > MAX_OUTCOME:
        raise UnreadableOutcomeError(f"it is over {MAX_OUTCOME} bytes")
    try:
        event = CloudEvent[OutcomeReported].model_validate_json(payload)
    except ValidationError as exc:
        raise UnreadableOutcomeError(f"{exc.error_count()} things are not valid") from None
    told = event.data
    return Outcome(
        order_id=event.subject,
        step=channel.partition(".")[2],
        status=StepStatus(told.status),
        at=at,
        attempts=told.attempts,
        result=told.result,
        reason=told.reason,
        retry=event.retry,
    )
