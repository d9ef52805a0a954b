"""Amounts of money as people read them."""

from servicekit.fields import minor_units


def format_money(amount_minor: int, currency: str) -> str:
    """An amount of minor units with its currency: 4348 in GBP is `43.48 GBP`, 500 in JPY is `500 JPY`.

    As many decimal digits as the currency has by ISO 4217; none where it names no minor unit (gold, say).
    No grouping: a comma would be a decimal point to half of the readers.
    """
    digits = minor_units(currency)
    sign = "-" if amount_minor < 0 else ""
    figures = str(abs(amount_minor)).zfill(digits + 1)
    if digits:
        figures = f"{figures[:-digits]}.{figures[-digits:]}"
    return f"{sign}{figures} {currency}"
