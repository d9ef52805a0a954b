"""What the rewards service hears and tells, as an AsyncAPI document."""

from typing import Any

from rewards_svc.consumer import STREAM, SUBJECT, Credited, OrderCreated
from servicekit.asyncapi import Flow, participant_document

HEARD = Flow("receive", "duet.OrderCreated", SUBJECT, STREAM, "An order was accepted.", OrderCreated)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document."""
    return participant_document(
        "Duet rewards",
        "Credits points for the orders of members that it hears of.",
        "rewards",
        HEARD,
        Credited,
    )
