"""The broker of a running system as a test sees it: what its streams hold, and events put there by force.

It looks as the broker's operator, who may not publish, and forges as checkout, who alone may.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import httpx
import nats
from nats.js import JetStreamContext

from lab.broker import connect
from lab.system import HOST
from tests.support.faults import PARTICIPANTS
from tests.support.system import LiveSystem

ORDERS = "ORDERS"
DEAD_LETTERS = "DEAD_LETTERS"
CREATED = "orders.created"
BOUND_S = 20.0

R = TypeVar("R")


def last_sequence(system: LiveSystem, stream: str) -> int:
    """How many messages were ever put into a stream since it was made, by the broker's own monitoring."""
    url = f"http://{HOST}:{system.lab.monitoring_port}/jsz"
    seen = httpx.get(url, params={"streams": "true"}, trust_env=False).json()
    streams = [each for account in seen["account_details"] for each in account.get("stream_detail", [])]
    [sequence] = [each["state"]["last_seq"] for each in streams if each["name"] == stream]
    return int(sequence)


def publish(system: LiveSystem, events: Sequence[bytes]) -> None:
    """Put events into the stream of orders, in this order, as checkout."""

    async def put() -> None:
        client = await nats.connect(
            system.lab.broker_url,
            user="checkout",
            password=system.lab.broker_passwords()["checkout"],
            inbox_prefix=b"_INBOX_checkout",
        )
        try:
            for event in events:
                await client.jetstream().publish(CREATED, event)
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(put(), BOUND_S))


def read_events(system: LiveSystem) -> dict[str, bytes]:
    """The events in the stream of orders by order id, the last of each; what cannot be read is left out."""

    async def read(stream: JetStreamContext) -> dict[str, bytes]:
        found = {}
        state = (await stream.stream_info(ORDERS)).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            data = (await stream.get_msg(ORDERS, sequence)).data or b""
            if b'"subject"' in data:
                found[str(json.loads(data)["subject"])] = data
        return found

    return _as_operator(system, read)


def forget_participants(system: LiveSystem) -> None:
    """Delete the participants' durables: each makes its own anew, and hears everything again."""

    async def forget(stream: JetStreamContext) -> None:
        for name in PARTICIPANTS:
            await stream.delete_consumer(ORDERS, name)

    _as_operator(system, forget)


def all_heard(system: LiveSystem) -> bool:
    """Whether every participant has settled every event in the stream."""

    async def heard(stream: JetStreamContext) -> bool:
        consumers = {each.name: each for each in await stream.consumers_info(ORDERS)}
        known = [consumers[name] for name in PARTICIPANTS if name in consumers]
        settled = all(each.num_pending == 0 and each.num_ack_pending == 0 for each in known)
        return len(known) == len(PARTICIPANTS) and settled

    return _as_operator(system, heard)


def deliveries(system: LiveSystem, name: str) -> int:
    """How often the broker has handed this participant an event, repeats included."""

    async def count(stream: JetStreamContext) -> int:
        delivered = (await stream.consumer_info(ORDERS, name)).delivered
        return 0 if delivered is None else int(delivered.consumer_seq)

    return _as_operator(system, count)


def _as_operator(system: LiveSystem, action: Callable[[JetStreamContext], Awaitable[R]]) -> R:
    async def act() -> R:
        async with asyncio.timeout(BOUND_S), connect(system.lab) as stream:
            return await action(stream)

    return asyncio.run(act())
