"""Field types for the edges: text, addresses and codes that are safe to store, log and send on."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import iso4217
from annotated_types import GroupedMetadata
from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

# C0, DEL and C1: they break headers, logs and terminals, and PostgreSQL refuses NUL.
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
# Local parts of which nothing need be asked but their length, before an ASCII domain.
MAX_LOCAL_PART, MAX_PLAIN_DOMAIN = 64, 180
_PLAIN = re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9.-]+")
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


@dataclass(frozen=True)
class Address:
    """One addr-spec (RFC 5322): its domain as it is written, in lower case, and in ASCII."""

    local_part: str
    domain: str
    ascii_domain: str

    @property
    def normalised(self) -> str:
        """The address as it is to be stored."""
        return f"{self.local_part}@{self.domain}"


def parse_address(address: str) -> Address:
    """Parse exactly one addr-spec, without looking it up. Raises EmailNotValidError."""
    local_part, _, domain = address.partition("@")
    if len(local_part) <= MAX_LOCAL_PART and len(domain) <= MAX_PLAIN_DOMAIN and _PLAIN.fullmatch(address):
        return Address(local_part, *_domain(domain))
    parsed = validate_email(address, check_deliverability=False)
    return Address(parsed.local_part, parsed.domain, parsed.ascii_domain)


@lru_cache(maxsize=4_096)
def _domain(domain: str) -> tuple[str, str]:
    # Most of the time that an address takes goes into its domain, and few domains are in most addresses.
    parsed = validate_email(f"a@{domain}", check_deliverability=False)
    return parsed.domain, parsed.ascii_domain


def _one_addr_spec(address: str) -> str:
    try:
        return parse_address(address).normalised
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
