"""Field types for the edges: text, addresses and codes that are safe to store, log and send on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import iso4217
from annotated_types import GroupedMetadata
from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

# C0, DEL and C1: they break headers, logs and terminals, and PostgreSQL refuses NUL.
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
SOME_TEXT = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"


@dataclass(frozen=True)
class line_of_text(GroupedMetadata):
    """The constraints of one line: 1 to `max_length` characters, trimmed, without control characters.

    A line of nothing but space is refused, and a control character is also where trimming would remove it.
    """

    max_length: int

    def __iter__(self) -> Iterator[object]:
        """What pydantic applies, in this order."""
        yield StringConstraints(min_length=1, max_length=self.max_length, pattern=SOME_TEXT)
        yield AfterValidator(str.strip)


def parse_address(address: str) -> ValidatedEmail:
    """Parse exactly one addr-spec, without looking it up. Raises EmailNotValidError."""
    return validate_email(address, check_deliverability=False)


def _one_addr_spec(address: str) -> str:
    try:
        return parse_address(address).normalized
    except EmailNotValidError as exc:
        raise PydanticCustomError(
            "email_address", "not one e-mail address: {reason}", {"reason": str(exc)}
        ) from exc


EmailAddress = Annotated[
    str,
    StringConstraints(max_length=254, pattern=NO_CONTROL_CHARACTERS),
    AfterValidator(_one_addr_spec),
    Field(json_schema_extra={"format": "email"}),
]
"""Exactly one addr-spec (RFC 5322), with its domain normalised; no display name, no list."""


def minor_units(currency: str) -> int:
    """How many decimal digits a currency's minor unit has by ISO 4217; 0 where there is no minor unit."""
    return iso4217.Currency(currency).exponent or 0


def _known_currency(code: str) -> str:
    try:
        iso4217.Currency(code)
    except ValueError:
        raise PydanticCustomError("currency", "not a currency code of ISO 4217") from None
    return code


CurrencyCode = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Z]{3}$"),
    AfterValidator(_known_currency),
    Field(json_schema_extra={"format": "iso-4217"}),
]
"""An alphabetic ISO 4217 code in capitals, such as GBP."""
