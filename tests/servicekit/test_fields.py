"""Addresses are taken apart as the library has it, also where it is asked about the domain only."""

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from servicekit.fields import Address, parse_address

LABELS = st.text("abcXYZ019-_", min_size=0, max_size=70)
DOMAINS = st.one_of(
    st.lists(LABELS, min_size=0, max_size=5).map(".".join),
    st.sampled_from(["example.com", "Example.ORG", "localhost", "a.test", "x.local", "bücher.example"]),
)
LOCALS = st.one_of(
    st.lists(st.text("aZ09_+-", max_size=40), min_size=1, max_size=4).map(".".join),
    st.text(st.characters(codec="utf-8"), max_size=8),
)


def as_the_library_has_it(address: str) -> Address | None:
    try:
        parsed = validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return None
    return Address(parsed.local_part, parsed.domain, parsed.ascii_domain)


@given(LOCALS, DOMAINS)
@example("a" * 64, "example.com")
@example("a" * 65, "example.com")
@example("a", ".".join(["b" * 60] * 3) + ".com")
@example("a" * 64, ".".join(["b" * 60] * 4))
@example("ada", "xn--bcher-kva.example")
def test_an_address_is_what_the_library_says_whichever_way_it_is_read(local: str, domain: str) -> None:
    address = f"{local}@{domain}"
    expected = as_the_library_has_it(address)
    if expected is None:
        with pytest.raises(EmailNotValidError):
            parse_address(address)
    else:
        assert parse_address(address) == expected
