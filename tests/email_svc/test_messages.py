"""The message: its headers, and that nothing a customer wrote gets out of its place."""

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from email_validator import EmailNotValidError
from hypothesis import given
from hypothesis import strategies as st

from email_svc.addresses import parse_sender
from email_svc.confirmations import Claim, Line
from email_svc.messages import compose, one_line
from email_svc.smtp import Envelope
from tests.email_svc.conftest import confirmation

RECORDED_AT = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
SENDER = parse_sender("Duet Shop <orders@shop.example>")


def composed(order_id: str = "o1", **changes: object) -> Envelope:
    return compose(Claim(confirmation(order_id, **changes), RECORDED_AT, 1, 0.0), SENDER)


def parsed(envelope: Envelope) -> EmailMessage:
    return message_from_bytes(envelope.payload, policy=policy.default)


def part(envelope: Envelope, kind: str) -> str:
    body = parsed(envelope).get_body((kind,))
    assert body is not None
    content: str = body.get_content()
    return content


def test_the_headers_say_whose_confirmation_it_is_and_that_a_machine_wrote_it() -> None:
    envelope = composed("019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00")
    message = parsed(envelope)
    assert message["From"] == "Duet Shop <orders@shop.example>"
    assert message["To"] == "ada@example.com"
    assert message["Message-ID"] == "<019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00@shop.example>"
    assert message["Date"].datetime == RECORDED_AT
    assert message["Auto-Submitted"] == "auto-generated"
    assert "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00" in message["Subject"]
    assert (envelope.sender, envelope.recipient) == ("orders@shop.example", "ada@example.com")


def test_both_parts_show_lines_prices_total_and_address() -> None:
    for kind in ("plain", "html"):
        shown = part(composed(), kind)
        for piece in ("BOOK-1", "19.99 GBP", "39.98 GBP", "3.50 GBP", "43.48 GBP", "12 St James Sq", "GB"):
            assert piece in shown


def test_the_longest_message_id_stays_on_one_line_as_it_is() -> None:
    sender = parse_sender(f"orders@{'a' * 60}.{'b' * 60}.example")
    payload = compose(Claim(confirmation("o" * 64), RECORDED_AT, 1, 0.0), sender).payload
    assert f"Message-ID: <{'o' * 64}@{sender.domain}>\r\n".encode() in payload


@pytest.mark.parametrize("recipient", ["ada@example.com", "adä@example.com"])
def test_a_long_name_with_a_comma_stays_one_sender(recipient: str) -> None:
    sender = parse_sender(f'"Dö, {"x" * 90}" <orders@shop.example>')
    payload = compose(Claim(confirmation(recipient=recipient), RECORDED_AT, 1, 0.0), sender).payload
    header = message_from_bytes(payload, policy=policy.SMTPUTF8)["From"]
    assert [address.addr_spec for address in header.addresses] == ["orders@shop.example"]


def test_markup_is_escaped_in_html() -> None:
    hostile = '<script>alert("x")</script>&amp;'
    lines = (Line(hostile, 1, 1),)
    html = part(composed(name=hostile, lines=lines, ship_to=(hostile, "x")), "html")
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;amp;") == 3


@pytest.mark.parametrize(
    "break_", ["\r\n", "\n", "\r", "\x00", "\u2028", "\u2029", "\x85", "\x0b", "\x1e", "\ufeff\n"]
)
def test_no_name_makes_a_header_or_a_line_of_its_own(break_: str) -> None:
    hostile = f"Ada{break_}Bcc: eve@example.com{break_}{break_}Total: 0.00 GBP"
    envelope = composed(name=hostile, lines=(Line(hostile, 1, 1),), ship_to=(hostile, "x"))
    message = parsed(envelope)
    assert message["Bcc"] is None
    assert {name.lower() for name in message} == {
        *("from", "to", "subject", "date", "message-id", "auto-submitted", "mime-version", "content-type")
    }
    shown = part(envelope, "plain")
    assert not any(line.lstrip().startswith(("Bcc:", "Total: 0")) for line in shown.splitlines())
    assert len(shown.splitlines()) == len(part(composed(), "plain").splitlines()) - 3


@pytest.mark.parametrize(
    "address", ["a@x.org, b@x.org", "a@x.org\r\nBcc: b@x.org", "A <a@x.org>", "a@x.org>"]
)
def test_a_recipient_that_is_not_one_address_makes_no_message(address: str) -> None:
    with pytest.raises(EmailNotValidError):
        composed(recipient=address)


def test_an_international_domain_needs_no_special_server() -> None:
    envelope = composed(recipient="ada@exämple.com")
    assert (envelope.recipient, envelope.internationalised) == ("ada@xn--exmple-cua.com", False)
    assert envelope.payload.isascii()
    assert parsed(envelope)["To"] == "ada@xn--exmple-cua.com"


def test_an_international_local_part_is_sent_as_it_is() -> None:
    envelope = composed(recipient="adä@exämple.com")
    assert (envelope.recipient, envelope.internationalised) == ("adä@xn--exmple-cua.com", True)
    assert "To: adä@xn--exmple-cua.com\r\n".encode() in envelope.payload


def test_the_same_confirmation_makes_the_same_headers_again() -> None:
    first, again = parsed(composed()), parsed(composed())
    for header in ("Message-ID", "Date", "Subject", "To", "From"):
        assert first[header] == again[header]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(names, names)
def test_any_name_is_one_line_and_travels_in_short_ascii_lines(name: str, sku: str) -> None:
    assert len(one_line(name).splitlines()) <= 1
    envelope = composed(name=name, lines=(Line(sku, 1, 1),))
    assert envelope.payload.isascii()
    assert max(len(line) for line in envelope.payload.split(b"\r\n")) <= 998
    assert f"Hello {one_line(name)}," in part(envelope, "plain").splitlines()


@pytest.mark.parametrize("sender", ["", "a@x.org, b@x.org", "Shop", "A <a@x.org>\r\nX: y", "ä@x.org"])
def test_a_sender_that_is_not_one_plain_address_is_refused(sender: str) -> None:
    with pytest.raises(ValueError, match=r"address|ASCII"):
        parse_sender(sender)
