"""The order that the baselines accept and the checkout that they answer with.

The rules are those of the public API (lengths, ranges, unknown fields refused), declared as anybody would
declare them in pydantic, so that a baseline does the same checking for its order as the real conductor does.
Currency and country are checked for their form only: this is the one rule that the baselines lack.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, EmailStr, Field, StringConstraints

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Customer(Strict):
    name: Text
    email: EmailStr
    rewards_member: bool


class Line(Strict):
    sku: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    quantity: Annotated[int, Field(ge=1, le=10_000)]
    unit_price_minor: Annotated[int, Field(ge=0, le=100_000_000)]


class Address(Strict):
    name: Text | None = None
    line1: Text
    line2: Text | None = None
    city: Text
    region: Text | None = None
    postcode: Text | None = None
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class Order(Strict):
    customer: Customer
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    lines: Annotated[list[Line], Field(min_length=1, max_length=100)]
    ship_to: Address

    @property
    def total_minor(self) -> int:
        """The order's price in minor units of its currency."""
        return sum(line.quantity * line.unit_price_minor for line in self.lines)

    @property
    def told(self) -> dict[str, Any]:
        """What a client is told of it again."""
        return {**dict(self), "total_minor": self.total_minor}


class Step(BaseModel):
    status: Literal["pending", "succeeded", "skipped"]
    attempts: int
    result: dict[str, Any] | None = None
    reason: str | None = None
    finished_at: datetime | None = None

    @classmethod
    def skipped(cls) -> Self:
        """The rewards step of a customer who has not joined."""
        return cls(status="skipped", attempts=0, reason="the customer has not joined rewards")


class Checkout(BaseModel):
    """What a client is told: the same fields as the real representation."""

    order_id: str
    style: Literal["orchestration", "choreography"]
    status: Literal["in_progress", "completed"]
    customer: Customer
    currency: str
    lines: list[Line]
    ship_to: Address
    total_minor: int
    accepted_at: datetime
    completed_at: datetime | None
    steps: dict[str, Step]
