"""A fake system with a real broker, and work at that broker as somebody else's."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import nats
from nats.js import JetStreamContext

from lab.samples import sample_order
from tests.lab.fake_system import FakeSystem
from tests.support.broker import Broker

T = TypeVar("T")

AT = "2026-11-22T09:00:00.000000Z"


def lead_to_broker(fake: FakeSystem, broker: Broker) -> None:
    """Make `duet` commands on the fake's data folder use this broker."""
    fake.system.supervisor_file.write_text(json.dumps({"port_base": 8000, "nats_url": broker.url}))


def at_broker(broker: Broker, work: Callable[[JetStreamContext], Awaitable[T]]) -> T:
    """Do some work with a connection of its own, from a test that has no event loop."""

    async def run() -> T:
        connection = await nats.connect(broker.url)
        try:
            return await work(connection.jetstream())
        finally:
            await connection.close()

    return asyncio.run(run())


def event_of(order_id: str, **changes: Any) -> dict[str, Any]:
    """OrderCreated for the sample order under this id; `changes` replace parts of its data."""
    return {
        "specversion": "1.0",
        "id": order_id,
        "source": "/checkout",
        "type": "duet.OrderCreated",
        "subject": order_id,
        "time": AT,
        "datacontenttype": "application/json",
        "retry": 0,
        "data": {"order_id": order_id, **sample_order(), "total_minor": 4348, "accepted_at": AT, **changes},
    }
