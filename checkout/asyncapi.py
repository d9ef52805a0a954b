"""What checkout tells and hears, as an AsyncAPI document. It names nobody who listens."""

from typing import Any

from checkout.broker import CREATED, ORDERS, OUTCOMES
from checkout.events import ORDER_CREATED, OrderCreated, OutcomeReported
from servicekit.asyncapi import Flow, document_of
from servicekit.reports import OUTCOME_REPORTED, outcome_channel

EMITTED = Flow("send", ORDER_CREATED, CREATED, ORDERS.name, "An order was accepted.", OrderCreated)
HEARD = Flow(
    "receive",
    OUTCOME_REPORTED,
    outcome_channel("{participant}"),
    OUTCOMES.name,
    "What has become of an order at one of those who take part.",
    OutcomeReported,
    {"participant": "Who tells: the name that the broker knows it by."},
)


def document() -> dict[str, Any]:
    """The AsyncAPI 3 document."""
    return document_of("Duet checkout", "Tells of every order that it has accepted.", [EMITTED, HEARD])
