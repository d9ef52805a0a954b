"""What an order asks of each service, and the one call by which a baseline asks for it.

A call is made once, with httpx's timeouts as a tutorial sets them. It refuses any answer but a 2xx with JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from lab.baselines.models import Order

SERVICES = ("email", "warehouse", "rewards")
TIMEOUT_S = 5.0  # for each operation of a call: to connect, to send, to receive a part
# 256 clients make three calls each; under the default of 100 connections they wait for one another.
LIMITS = httpx.Limits(max_connections=1024)
# The transport lets some of aiohttp's own errors through; a body that is no JSON is a ValueError.
CALL_FAILED = (httpx.HTTPError, aiohttp.ClientError, OSError, ValueError)


@dataclass(frozen=True)
class Service:
    """Where a service is, and the headers that open it."""

    url: str
    headers: Mapping[str, str]


def read_services(settings: Mapping[str, str], prefix: str) -> dict[str, Service]:
    """By name, the services that PREFIX_EMAIL_URL, PREFIX_EMAIL_TOKEN and so on tell of; raise `KeyError`."""
    return {
        name: Service(
            settings[f"{prefix}_{name.upper()}_URL"].rstrip("/"),
            {"Authorization": f"Bearer {settings[f'{prefix}_{name.upper()}_TOKEN']}"},
        )
        for name in SERVICES
    }


def pooled_client() -> httpx.AsyncClient:
    """httpx on aiohttp's connection pool, as the real conductor uses it. Wants a running loop to be used."""
    return httpx.AsyncClient(timeout=TIMEOUT_S, transport=AiohttpTransport(limits=LIMITS))


def commands(order_id: str, order: Order) -> dict[str, tuple[str, dict[str, Any]]]:
    """By service name, the path to POST to and the body; `rewards` is left out unless the customer joined."""
    buyer = {"name": order.customer.name, "email": order.customer.email}
    price = {"currency": order.currency, "total_minor": order.total_minor}
    lines = [line.model_dump() for line in order.lines]
    parcel = [{"sku": line.sku, "quantity": line.quantity} for line in order.lines]
    ship_to = order.ship_to.model_dump()
    ship_to["name"] = ship_to["name"] or order.customer.name
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "email": (
            "/emails",
            {"order_id": order_id, "customer": buyer, **price, "lines": lines, "ship_to": ship_to},
        ),
        "warehouse": ("/shipments", {"order_id": order_id, "lines": parcel, "ship_to": ship_to}),
    }
    if order.customer.rewards_member:
        asked["rewards"] = ("/balances", {"order_id": order_id, "customer": buyer, **price})
    return asked


async def call(client: httpx.AsyncClient, service: Service, path: str, command: Mapping[str, Any]) -> Any:
    """POST once and return the JSON of the 2xx; raise one of `CALL_FAILED`."""
    response = await client.post(service.url + path, json=command, headers=service.headers)
    response.raise_for_status()
    return response.json()
