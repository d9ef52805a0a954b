"""The conductor's three commands, rebuilt from an order's representation, for `duet repair`.

A contract test holds them to what the conductor itself sends. It refuses an order that lacks a part of one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.errors import LabError

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """What the conductor posts to a service for one order."""

    path: str
    body: dict[str, Any]


def command_for(service: str, order: Json) -> Command:
    """The command for one of `SERVICES`; raise `LabError` where the order lacks a part of it."""
    path, body = _COMMANDS[service]
    try:
        return Command(path, body(order))
    except (KeyError, TypeError) as error:
        raise LabError(f"order {order.get('order_id')} has no {error} to make a command from") from error


def _send_confirmation(order: Json) -> dict[str, Any]:
    return {
        "order_id": order["order_id"],
        "customer": _customer(order),
        "currency": order["currency"],
        "total_minor": order["total_minor"],
        "lines": [
            {
                "sku": line["sku"],
                "quantity": line["quantity"],
                "unit_price_minor": line["unit_price_minor"],
            }
            for line in order["lines"]
        ],
        "ship_to": _ship_to(order),
    }


def _prepare_shipment(order: Json) -> dict[str, Any]:
    return {
        "order_id": order["order_id"],
        "lines": [{"sku": line["sku"], "quantity": line["quantity"]} for line in order["lines"]],
        "ship_to": _ship_to(order),
    }


def _credit_points(order: Json) -> dict[str, Any]:
    return {
        "order_id": order["order_id"],
        "customer": _customer(order),
        "currency": order["currency"],
        "total_minor": order["total_minor"],
    }


def _customer(order: Json) -> dict[str, Any]:
    return {"name": order["customer"]["name"], "email": order["customer"]["email"]}


def _ship_to(order: Json) -> dict[str, Any]:
    address = order["ship_to"]
    fields = ("line1", "line2", "city", "region", "postcode", "country")
    return {
        "name": address.get("name") or order["customer"]["name"],
        **{field: address.get(field) for field in fields},
    }


_COMMANDS: dict[str, tuple[str, Callable[[Json], dict[str, Any]]]] = {
    "email": ("/emails", _send_confirmation),
    "warehouse": ("/shipments", _prepare_shipment),
    "rewards": ("/balances", _credit_points),
}
SERVICES = tuple(_COMMANDS)
