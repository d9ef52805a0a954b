"""The confirmation as a message: text and HTML, made from what was recorded, the same at every attempt.

Everything that a customer wrote is hostile: it never reaches a header but as the one recipient, it is
escaped in HTML, and each piece of it stays on its own line of the text.
"""

import email.policy
import unicodedata
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from email_svc.addresses import Address, parse_address
from email_svc.confirmations import Claim, Confirmation
from email_svc.money import format_money
from email_svc.smtp import Envelope

# Headers are short by construction, and folding loses the quotes of a long name with a comma (CPython 3.11).
MAX_HEADER_LENGTH = 998
# They would let a name reorder what is printed after it.
BIDI_CONTROLS = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def compose(claim: Claim, sender: Address) -> Envelope:
    """The message that confirms an order, with its envelope. The sender's domain ends the Message-ID."""
    confirmation = claim.confirmation
    recipient = parse_address(confirmation.recipient)
    policy = email.policy.SMTP.clone(cte_type="7bit", utf8=not recipient.ascii_only)

    message = EmailMessage(policy)
    message["From"] = HeaderAddress(sender.display_name, sender.local_part, sender.domain)
    message["To"] = HeaderAddress("", recipient.local_part, recipient.domain)
    message["Subject"] = f"Your order {confirmation.order_id}"
    message["Date"] = claim.recorded_at
    message["Message-ID"] = f"<{confirmation.order_id}@{sender.domain}>"
    message["Auto-Submitted"] = "auto-generated"
    shown = _shown(confirmation)
    message.set_content(_templates().get_template("confirmation.txt").render(shown))
    message.add_alternative(_templates().get_template("confirmation.html").render(shown), subtype="html")
    return Envelope(
        sender=sender.addr_spec,
        recipient=recipient.addr_spec,
        payload=message.as_bytes(policy=policy.clone(max_line_length=MAX_HEADER_LENGTH)),
        internationalised=not recipient.ascii_only,
    )


def one_line(text: str) -> str:
    """A customer's text as one harmless line: no control characters, line breaks or reordering marks."""
    cleaned = "".join(" " if _breaks(character) else character for character in text)
    return " ".join(cleaned.translate(BIDI_CONTROLS).split())


def _breaks(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _shown(confirmation: Confirmation) -> dict[str, Any]:
    currency = confirmation.currency
    return {
        "order_id": confirmation.order_id,
        "name": one_line(confirmation.name),
        "lines": [
            {
                "sku": one_line(line.sku),
                "quantity": line.quantity,
                "unit_price": format_money(line.unit_price_minor, currency),
                "price": format_money(line.quantity * line.unit_price_minor, currency),
            }
            for line in confirmation.lines
        ],
        "total": format_money(confirmation.total_minor, currency),
        "ship_to": [one_line(part) for part in confirmation.ship_to],
    }


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"], default=False),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
