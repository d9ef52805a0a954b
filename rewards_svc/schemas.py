"""What the rewards service reads and answers over HTTP; of events it reads hardly more than of commands.

A message may carry more than is declared here: the service reads only what it needs.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rewards_svc.points import Credit
from servicekit.fields import CurrencyCode, EmailAddress, line_of_text

MAX_TOTAL_MINOR = 100 * 10_000 * 100_000_000

OrderId = Annotated[str, line_of_text(64)]


class Member(BaseModel):
    """Whose balance it is."""

    model_config = ConfigDict(extra="ignore")

    email: EmailAddress


class CreditPoints(BaseModel):
    """The command: credit the points for one order. `total_minor` is in the currency's minor units."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "example": {
                "order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00",
                "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
                "currency": "GBP",
                "total_minor": 4348,
            }
        },
    )

    order_id: OrderId
    customer: Member
    currency: CurrencyCode
    total_minor: Annotated[int, Field(ge=0, le=MAX_TOTAL_MINOR, strict=True)]

    def to_credit(self) -> Credit:
        """The credit that is asked for, told or heard."""
        return Credit(self.order_id, self.customer.email, self.currency, self.total_minor)


class Credited(BaseModel):
    """The outcome for one order: the points of its entry, and the balance right after it."""

    order_id: str
    balance_id: str
    points: int
    balance: int


class BalanceLookup(BaseModel):
    """Find a balance by the member's address (a body, so that no address lands in a log of URLs)."""

    email: EmailAddress


class Balance(BaseModel):
    """A member's balance in points: the sum of its entries."""

    balance_id: str
    points: int
    opened_at: datetime


class Entry(BaseModel):
    """One entry of the ledger."""

    order_id: str
    points: int
    at: datetime


class EntryPage(BaseModel):
    """Entries, oldest first; `next` is the cursor of the following page, or null."""

    entries: list[Entry]
    next: str | None


class Effect(BaseModel):
    """That this service has acted on an order, and when."""

    order_id: str
    at: datetime


class EffectPage(BaseModel):
    """Effects in the order in which they were recorded; complete only on a quiet system."""

    effects: list[Effect]
    next: str | None
