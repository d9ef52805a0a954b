"""What the invoice service hears and tells, as an AsyncAPI document."""

from typing import Any

from invoice_svc.consumer import STREAM, SUBJECT, Invoiced, OrderCreated
from servicekit.asyncapi import Flow, participant_document

HEARD = Flow("receive", "duet.OrderCreated", SUBJECT, STREAM, "An order was accepted.", OrderCreated)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document."""
    return participant_document(
        "Duet invoice",
        "Issues an invoice for each order that it hears of.",
        "invoice",
        HEARD,
        Invoiced,
    )
