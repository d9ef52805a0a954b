"""What checkout reads and answers over HTTP. Amounts are in minor units, times RFC 3339 in UTC."""

from datetime import datetime
from typing import Annotated, Any

import orjson
import pycountry
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from checkout.orders import Order, OrderStatus, Progress, Step, StepStatus
from servicekit.fields import CurrencyCode, EmailAddress, line_of_text

MAX_LINES = 100
MAX_QUANTITY = 10_000
MAX_UNIT_PRICE_MINOR = 100_000_000
COUNTRIES = frozenset(country.alpha_2 for country in pycountry.countries)

EXAMPLE_REQUEST: dict[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
    "currency": "GBP",
    "lines": [
        {"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999},
        {"sku": "PEN-7", "quantity": 1, "unit_price_minor": 350},
    ],
    "ship_to": {
        "name": "Ada Lovelace",
        "line1": "12 St James Sq",
        "line2": None,
        "city": "London",
        "region": None,
        "postcode": "SW1Y 4JH",
        "country": "GB",
    },
}
EXAMPLE: dict[str, Any] = {
    "order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00",
    "style": "orchestration",
    "status": "completed",
    **EXAMPLE_REQUEST,
    "total_minor": 4348,
    "accepted_at": "2026-11-22T09:00:00.000000Z",
    "completed_at": "2026-11-22T09:00:00.012000Z",
    "steps": {
        "email": {
            "status": "succeeded",
            "attempts": 1,
            "result": {"delivery": "queued"},
            "finished_at": "2026-11-22T09:00:00.011000Z",
        },
        "warehouse": {
            "status": "succeeded",
            "attempts": 1,
            "result": {"shipment_id": "019a5c3e-7c20-7d11-8a5e-6f0a9a7a1b11", "state": "preparing"},
            "finished_at": "2026-11-22T09:00:00.012000Z",
        },
        "rewards": {
            "status": "succeeded",
            "attempts": 1,
            "result": {"balance_id": "019a5c3e-7c21-7c0e-b3a1-1f9d1f0c2d22", "points": 43},
            "finished_at": "2026-11-22T09:00:00.012000Z",
        },
    },
}
EXAMPLE_PARTICIPANT: dict[str, Any] = {
    "name": "email",
    "joined_at": "2026-11-22T08:00:00.000000Z",
    "retired_at": None,
}


def _country(code: str) -> str:
    if code not in COUNTRIES:
        raise PydanticCustomError("country", "not a country code of ISO 3166-1 alpha-2")
    return code


Text200 = Annotated[str, line_of_text(200)]
CountryCode = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z]{2}$"),
    AfterValidator(_country),
    Field(json_schema_extra={"format": "iso-3166-1-alpha-2"}),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Customer(_Strict):
    """Who orders. The shop's back end states whether the customer has joined the rewards programme."""

    name: Text200
    email: EmailAddress
    rewards_member: Annotated[bool, Field(strict=True)]


class Line(_Strict):
    """One line of the order."""

    sku: Annotated[str, line_of_text(64)]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY, strict=True)]
    unit_price_minor: Annotated[int, Field(ge=0, le=MAX_UNIT_PRICE_MINOR, strict=True)]


class Address(_Strict):
    """Where the goods go; `name` is the customer's if absent."""

    name: Text200 | None = None
    line1: Text200
    line2: Text200 | None = None
    city: Text200
    region: Text200 | None = None
    postcode: Text200 | None = None
    country: CountryCode


class CheckoutRequest(_Strict):
    """An order as a client submits it."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_REQUEST})

    customer: Customer
    currency: CurrencyCode
    lines: Annotated[list[Line], Field(min_length=1, max_length=MAX_LINES)]
    ship_to: Address

    def to_order(self, order_id: str, style: str, caller: str, accepted_at: datetime) -> Order:
        """The order that this request asks for."""
        ship_to = self.ship_to.model_dump()
        ship_to["name"] = ship_to["name"] or self.customer.name
        return Order(
            order_id=order_id,
            style=style,
            caller=caller,
            customer=self.customer.model_dump(),
            currency=self.currency,
            lines=[line.model_dump() for line in self.lines],
            ship_to=ship_to,
            total_minor=sum(line.quantity * line.unit_price_minor for line in self.lines),
            accepted_at=accepted_at,
        )


class StepView(_Strict):
    """One step. `last_error` and `since` are there once a pending step has failed to get through.

    `awaited` is there, and false, if the participant joined after the order was accepted, or had retired: the
    order's status does not depend on it.
    """

    status: StepStatus
    attempts: int
    result: dict[str, Any] | None = None
    reason: str | None = None
    last_error: str | None = None
    since: datetime | None = None
    finished_at: datetime | None = None
    awaited: bool = True


class Checkout(_Strict):
    """An order and how far it has come: the same representation everywhere, in both styles."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE})

    order_id: str
    style: str
    status: OrderStatus
    customer: Customer
    currency: str
    lines: list[Line]
    ship_to: Address
    total_minor: int
    accepted_at: datetime
    completed_at: datetime | None
    steps: dict[str, StepView]


class CheckoutPage(BaseModel):
    """Orders, oldest first; `next` is the cursor of the following page, or null."""

    model_config = ConfigDict(json_schema_extra={"example": {"checkouts": [EXAMPLE], "next": None}})

    checkouts: list[Checkout]
    next: str | None


class ParticipantView(_Strict):
    """Who takes part in choreographed orders, and is awaited by those accepted until `retired_at`."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_PARTICIPANT})

    name: str
    joined_at: datetime
    retired_at: datetime | None


class ParticipantList(BaseModel):
    """All that have ever taken part, by name."""

    model_config = ConfigDict(json_schema_extra={"example": {"participants": [EXAMPLE_PARTICIPANT]}})

    participants: list[ParticipantView]


def represent(order: Order, progress: Progress) -> dict[str, Any]:
    """The representation of an order, as `Checkout` describes it; absent parts of a step are left out."""
    return {
        "order_id": order.order_id,
        "style": order.style,
        "status": progress.status,
        "customer": order.customer,
        "currency": order.currency,
        "lines": order.lines,
        "ship_to": order.ship_to,
        "total_minor": order.total_minor,
        "accepted_at": order.accepted_at,
        "completed_at": progress.completed_at,
        "steps": {name: _represent_step(step) for name, step in progress.steps.items()},
    }


def to_json(document: object) -> bytes:
    """JSON with times as RFC 3339 in UTC (`Z`)."""
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)


def _represent_step(step: Step) -> dict[str, Any]:
    view: dict[str, Any] = {"status": step.status, "attempts": step.attempts}
    for name in ("result", "reason", "last_error", "since", "finished_at"):
        value = getattr(step, name)
        if value is not None:
            view[name] = value
    if not step.awaited:
        view["awaited"] = False
    return view
