"""What the e-mail service reads and answers over HTTP; of events it reads the same as of commands.

A message may carry more than is declared here: the service reads only what it needs.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from email_svc import confirmations
from servicekit.fields import CurrencyCode, EmailAddress, line_of_text

MAX_LINES = 100
MAX_QUANTITY = 10_000
MAX_UNIT_PRICE_MINOR = 100_000_000
MAX_TOTAL_MINOR = MAX_LINES * MAX_QUANTITY * MAX_UNIT_PRICE_MINOR

OrderId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Annotated[str, line_of_text(200)]
AddressLine = Annotated[str, line_of_text(200)]
Delivery = Literal["queued", "sent", "bounced"]


class Customer(BaseModel):
    """Whom to write to."""

    model_config = ConfigDict(extra="ignore")

    name: Name
    email: EmailAddress


class Line(BaseModel):
    """One line of the order; the price is in the currency's minor units."""

    model_config = ConfigDict(extra="ignore")

    sku: Annotated[str, line_of_text(64)]
    quantity: Annotated[int, Field(ge=1, le=MAX_QUANTITY, strict=True)]
    unit_price_minor: Annotated[int, Field(ge=0, le=MAX_UNIT_PRICE_MINOR, strict=True)]


class ShipTo(BaseModel):
    """The postal address, as the confirmation shows it."""

    model_config = ConfigDict(extra="ignore")

    name: Name | None = None
    line1: AddressLine
    line2: AddressLine | None = None
    city: AddressLine
    region: AddressLine | None = None
    postcode: AddressLine | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]

    def to_lines(self, customer: str) -> tuple[str, ...]:
        """The address as it is written on an envelope; the customer's name stands in for an absent one."""
        town = " ".join(part for part in (self.postcode, self.city) if part)
        parts = (self.name or customer, self.line1, self.line2, town, self.region, self.country)
        return tuple(part for part in parts if part)


class SendConfirmation(BaseModel):
    """The command: confirm one order to its customer. `total_minor` is in the currency's minor units."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "example": {
                "order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00",
                "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
                "currency": "GBP",
                "total_minor": 4348,
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
        },
    )

    order_id: OrderId
    customer: Customer
    currency: CurrencyCode
    total_minor: Annotated[int, Field(ge=0, le=MAX_TOTAL_MINOR, strict=True)]
    lines: Annotated[list[Line], Field(min_length=1, max_length=MAX_LINES)]
    ship_to: ShipTo

    def to_confirmation(self) -> confirmations.Confirmation:
        """The confirmation that is asked for, told or heard."""
        return confirmations.Confirmation(
            order_id=self.order_id,
            recipient=self.customer.email,
            name=self.customer.name,
            currency=self.currency,
            total_minor=self.total_minor,
            lines=tuple(
                confirmations.Line(line.sku, line.quantity, line.unit_price_minor) for line in self.lines
            ),
            ship_to=self.ship_to.to_lines(self.customer.name),
        )


class Recorded(BaseModel):
    """The outcome for one order: its confirmation is recorded, and how far its delivery has come."""

    order_id: str
    delivery: Delivery


class Confirmation(BaseModel):
    """A recorded confirmation. `reason` is why it bounced, or why the last attempt did not get through."""

    order_id: str
    delivery: Delivery
    to: str
    recorded_at: datetime
    attempts: int
    delivered_at: datetime | None
    reason: str | None


class Effect(BaseModel):
    """That this service has acted on an order, and when."""

    order_id: str
    at: datetime


class EffectPage(BaseModel):
    """Effects in the order in which they were recorded; complete only on a quiet system."""

    effects: list[Effect]
    next: str | None
