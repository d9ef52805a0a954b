"""Amounts as people read them."""

from decimal import Decimal

import iso4217
import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_svc.money import format_money


@pytest.mark.parametrize(
    ("amount_minor", "currency", "shown"),
    [
        (4348, "GBP", "43.48 GBP"),
        (5, "GBP", "0.05 GBP"),
        (0, "GBP", "0.00 GBP"),
        (500, "JPY", "500 JPY"),
        (1999, "KWD", "1.999 KWD"),
        (12345, "CLF", "1.2345 CLF"),
        (7, "XAU", "7 XAU"),
        (10**14, "EUR", "1000000000000.00 EUR"),
    ],
)
def test_an_amount_has_as_many_decimals_as_its_currency(amount_minor: int, currency: str, shown: str) -> None:
    assert format_money(amount_minor, currency) == shown


@given(st.integers(-(10**14), 10**14), st.sampled_from(list(iso4217.Currency)))
def test_what_is_shown_is_exactly_the_amount(amount_minor: int, currency: iso4217.Currency) -> None:
    figures, code = format_money(amount_minor, currency.code).split(" ")
    assert Decimal(figures).scaleb(currency.exponent or 0) == amount_minor
    assert code == currency.code
    assert len(figures.partition(".")[2]) == (currency.exponent or 0)
