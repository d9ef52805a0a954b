"""Text and amounts of orders as a terminal shows them. What came from outside is data, and never obeyed."""

import json
from typing import Any

from iso4217 import Currency


def plain(value: Any) -> str:
    """One line of printable text, whatever the value is."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else " " for letter in text)


def amount(minor: int, currency: str) -> str:
    """An amount in major units with its currency; raise `ValueError` where ISO 4217 has no such currency."""
    exponent = Currency(currency).exponent or 0
    return f"{minor / 10**exponent:.{exponent}f} {currency}"
