"""What the warehouse service reads and answers over HTTP; of events it reads the same as of commands.

A message may carry more than is declared here: the service reads only what it needs.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from servicekit.fields import NO_CONTROL_CHARACTERS, line_of_text
from warehouse_svc import shipments
from warehouse_svc.stock import MAX_ON_HAND

OrderId = Annotated[str, line_of_text(64)]
Sku = Annotated[str, line_of_text(64)]
AddressLine = Annotated[str, line_of_text(200)]
# An empty one means the same as null.
OptionalLine = (
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=200, pattern=NO_CONTROL_CHARACTERS)]
    | None
)


def _whole(value: Any) -> Any:
    # JSON knows one kind of number: 2.0 is as whole as 2. Strings and booleans are not numbers.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
State = Literal["backordered", "preparing", "packed", "shipped", "delivered"]


class Line(BaseModel):
    """So many units of one SKU."""

    model_config = ConfigDict(extra="ignore")

    sku: Sku
    quantity: Annotated[int, Field(ge=1, le=10_000, strict=True), Whole]


class Address(BaseModel):
    """Where the shipment goes; `country` is an ISO 3166 alpha-2 code, which the carrier checks."""

    model_config = ConfigDict(extra="ignore")

    name: AddressLine
    line1: AddressLine
    line2: OptionalLine = None
    city: AddressLine
    region: OptionalLine = None
    postcode: OptionalLine = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class PrepareShipment(BaseModel):
    """The command: prepare the shipment of one order."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "example": {
                "order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00",
                "lines": [{"sku": "BOOK-1", "quantity": 2}, {"sku": "PEN-7", "quantity": 1}],
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
    lines: Annotated[list[Line], Field(min_length=1, max_length=100)]
    ship_to: Address

    def to_preparation(self) -> shipments.PrepareShipment:
        """The shipment that is asked for, told or heard."""
        lines = [line.model_dump() for line in self.lines]
        return shipments.PrepareShipment(self.order_id, lines, self.ship_to.model_dump())


class Prepared(BaseModel):
    """The outcome for one order; `backordered` is a success too: the shipment waits for stock."""

    order_id: str
    shipment_id: str
    state: State


class Shipment(BaseModel):
    """A shipment, and when it came into its present state."""

    order_id: str
    shipment_id: str
    state: State
    lines: list[Line]
    ship_to: Address
    prepared_at: datetime
    changed_at: datetime


class AdvanceShipment(BaseModel):
    """Bring a shipment to its next state."""

    to: Literal["packed", "shipped", "delivered"]


class Stock(BaseModel):
    """A SKU's stock in units: `on_hand` includes `allocated`, which is not shipped yet."""

    sku: str
    on_hand: int
    allocated: int
    available: int


class SetStock(BaseModel):
    """What is really there, in units, allocated goods included."""

    on_hand: Annotated[int, Field(ge=0, le=MAX_ON_HAND, strict=True), Whole]


class Restocked(Stock):
    """The stock after it was set, and how many backordered shipments it filled."""

    filled: int


class Effect(BaseModel):
    """That this service has acted on an order, and when."""

    order_id: str
    at: datetime


class EffectPage(BaseModel):
    """Effects in the order in which they were recorded; complete only on a quiet system."""

    effects: list[Effect]
    next: str | None
