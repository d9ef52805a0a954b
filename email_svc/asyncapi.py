"""What the e-mail service hears and tells, as an AsyncAPI document."""

from typing import Any

from email_svc.consumer import STREAM, SUBJECT, Confirmed, OrderCreated
from servicekit.asyncapi import Flow, participant_document

HEARD = Flow("receive", "duet.OrderCreated", SUBJECT, STREAM, "An order was accepted.", OrderCreated)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document."""
    return participant_document(
        "Duet e-mail", "Confirms every order that it hears of.", "email", HEARD, Confirmed
    )
