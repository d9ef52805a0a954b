"""What the warehouse service hears and tells, as an AsyncAPI document."""

from typing import Any

from servicekit.asyncapi import Flow, participant_document
from warehouse_svc.consumer import STREAM, SUBJECT, OrderCreated, Prepared

HEARD = Flow("receive", "duet.OrderCreated", SUBJECT, STREAM, "An order was accepted.", OrderCreated)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document."""
    return participant_document(
        "Duet warehouse",
        "Prepares a shipment for every order that it hears of.",
        "warehouse",
        HEARD,
        Prepared,
    )
