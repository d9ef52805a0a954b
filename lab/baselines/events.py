"""The one event of the naive publisher: its stream, its connection, and what it carries.

Everything is as nats-py has it by default: five seconds for an answer, 60 attempts to connect again, what is
published meanwhile is kept in memory. The stream is declared when a program starts, and at no other time.
It is not the real one's, whose consumers would hear the event, too.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js import JetStreamContext

from lab.baselines.models import Order

STREAM = "NAIVE"
CREATED = "naive.orders.created"


@asynccontextmanager
async def jetstream(settings: Mapping[str, str], prefix: str) -> AsyncIterator[JetStreamContext]:
    """JetStream by PREFIX_NATS_URL, PREFIX_NATS_USER and PREFIX_NATS_PASSWORD, with the stream declared.

    Raises nats-py's errors, and `KeyError`.
    """
    user = settings[f"{prefix}_NATS_USER"]
    connection = await nats.connect(
        settings[f"{prefix}_NATS_URL"],
        user=user,
        password=settings[f"{prefix}_NATS_PASSWORD"],
        inbox_prefix=f"_INBOX_{user}".encode(),  # the user may listen below it, and nowhere else
    )
    try:
        stream = connection.jetstream()
        await stream.add_stream(name=STREAM, subjects=[CREATED])
        yield stream
    finally:
        await connection.close()


def encode_event(order_id: str, order: Order) -> bytes:
    """The event that an order was stored."""
    return json.dumps({"order_id": order_id, "order": order.model_dump(mode="json")}).encode()


def decode_event(payload: bytes) -> tuple[str, Order]:
    """The order id and the order of an event; raise `ValueError` or `KeyError` where it is none."""
    told: Any = json.loads(payload)
    return str(told["order_id"]), Order.model_validate(told["order"])
