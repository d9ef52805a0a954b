"""What the invoice service reads and answers over HTTP; of events it reads the same as of commands.

A message may carry more than is declared here: the service reads only what it needs.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from invoice_svc.invoices import Bill
from servicekit.fields import CurrencyCode, line_of_text

MAX_TOTAL_MINOR = 100 * 10_000 * 100_000_000

OrderId = Annotated[str, line_of_text(64)]


class Buyer(BaseModel):
    """To whom the invoice is made out."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, line_of_text(200)]


class IssueInvoice(BaseModel):
    """The command: issue the invoice of one order. `total_minor` is in the currency's minor units."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "example": {
                "order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00",
                "customer": {"name": "Ada Lovelace"},
                "currency": "GBP",
                "total_minor": 4348,
            }
        },
    )

    order_id: OrderId
    customer: Buyer
    currency: CurrencyCode
    total_minor: Annotated[int, Field(ge=0, le=MAX_TOTAL_MINOR, strict=True)]

    def to_bill(self) -> Bill:
        """What is to be invoiced, told or heard."""
        return Bill(self.order_id, self.customer.name, self.currency, self.total_minor)


class Issued(BaseModel):
    """The outcome for one order: its invoice's number."""

    order_id: str
    number: int


class Invoice(BaseModel):
    """One invoice."""

    number: int
    order_id: str
    name: str
    currency: str
    total_minor: int
    issued_at: datetime


class Effect(BaseModel):
    """That this service has acted on an order, under which number, and when."""

    order_id: str
    number: int
    at: datetime


class EffectPage(BaseModel):
    """Effects in the order of their numbers; complete only on a quiet system."""

    effects: list[Effect]
    next: str | None
