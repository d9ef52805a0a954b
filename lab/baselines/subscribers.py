"""The naive publisher's subscribers: an event counts as done when it is delivered; then the work begins.

One for each service, which hands the event over by one POST. What fails is logged, and nobody tries again;
what a killed process had been handed is gone, since the broker takes a delivery for an acknowledgement.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

import httpx
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from lab.baselines.calls import CALL_FAILED, Service, call, commands
from lab.baselines.events import CREATED, STREAM, decode_event

log = logging.getLogger(__name__)


class Subscribers:
    """Hands events over, each in a task of its own, as many at a time as there are events."""

    def __init__(self, client: httpx.AsyncClient, services: Mapping[str, Service]) -> None:
        self._client = client
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected

    async def listen(self, stream: JetStreamContext) -> None:
        """Subscribe for every service; its place in the stream outlives the process. Raises nats errors."""
        for name in self._services:
            await stream.subscribe(
                CREATED,
                durable=name,
                stream=STREAM,
                cb=partial(self._heard, name),
                config=ConsumerConfig(ack_policy=AckPolicy.NONE),
            )

    async def _heard(self, name: str, message: Msg) -> None:
        task = asyncio.create_task(self.hand_over(name, message.data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def hand_over(self, name: str, payload: bytes) -> None:
        """Tell one service of one event, once; an error is logged."""
        try:
            order_id, order = decode_event(payload)
            asked = commands(order_id, order)
            if name in asked:
                await call(self._client, self._services[name], *asked[name])
        except (*CALL_FAILED, KeyError) as error:
            log.error("%s did not take its event: %r", name, error)
