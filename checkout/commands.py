"""What the conductor tells each service, and the little of each reply that it uses.

These are checkout's own view of three contracts; the services declare theirs, and contract tests compare.
"""

from collections.abc import Mapping
from typing import Any

from checkout.orders import Order
from checkout.replies import Reply


class ConfirmationReply(Reply):
    """The e-mail service has recorded the confirmation."""

    delivery: str


class ShipmentReply(Reply):
    """The warehouse has a shipment; `state` may be `backordered`."""

    shipment_id: str
    state: str


class BalanceReply(Reply):
    """The rewards service has an entry for the order."""

    balance_id: str
    points: int


def send_confirmation(order: Order) -> Mapping[str, Any]:
    """For the e-mail service: everything that a confirmation says."""
    return {
        "order_id": order.order_id,
        "customer": {"name": order.customer["name"], "email": order.customer["email"]},
        "currency": order.currency,
        "total_minor": order.total_minor,
        "lines": order.lines,
        "ship_to": order.ship_to,
    }


def prepare_shipment(order: Order) -> Mapping[str, Any]:
    """For the warehouse: what goes where. It learns no price and no e-mail address."""
    return {
        "order_id": order.order_id,
        "lines": [{"sku": line["sku"], "quantity": line["quantity"]} for line in order.lines],
        "ship_to": order.ship_to,
    }


def credit_points(order: Order) -> Mapping[str, Any]:
    """For the rewards service: who spent how much."""
    return {
        "order_id": order.order_id,
        "customer": {"name": order.customer["name"], "email": order.customer["email"]},
        "currency": order.currency,
        "total_minor": order.total_minor,
    }
