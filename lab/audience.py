"""Hearing a stream as its audience does: by a consumer that nobody awaits, and that is forgotten soon after.

Messages come in the order of the stream, each once: where one was lost on the way (a connection broke, the
broker was restarted), a new consumer goes on behind the last one heard. A stream that was made anew is heard
from its beginning. It refuses to acknowledge: nothing that it does holds anybody up.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import StreamInfo

BATCH = 100
QUIET_S = 2.0
RETRY_S = 0.5
FORGET_S = 60.0


@dataclass(frozen=True)
class Heard:
    """One message: its sequence in the stream, when the broker stored it, and its bytes."""

    sequence: int
    at: datetime
    data: bytes


async def hear(
    jetstream: "JetStreamContext",
    stream: str,
    subject: str,
    *,
    from_start: bool = False,
    notice: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[Heard, None]:
    """All messages from now on, or from the start, for ever; `notice` is told when trouble begins.

    It waits for a broker that is away, and for a stream that is not there yet, which is heard from its start.
    """
    import nats.errors

    position = 1 if from_start else None
    stamp: datetime | None = None
    trouble = False
    while True:
        try:
            info = await jetstream.stream_info(stream)
            if stamp not in (None, info.created):
                notice(f"the stream {stream} was made anew: hearing it from its start")
                position = 1
            elif position is None:
                position = info.state.last_seq + 1
            stamp, trouble = info.created, False
            async with aclosing(_consume(jetstream, info, subject, position)) as messages:
                async for message in messages:
                    position = message.sequence + 1
                    yield message
        except (nats.errors.Error, TimeoutError) as error:
            if not trouble:
                notice(f"waiting for the broker's stream {stream}: {str(error) or type(error).__name__}")
            trouble = True
            position = position or 1  # what comes before it can be heard is not to be missed
            await asyncio.sleep(RETRY_S)


async def _consume(
    jetstream: "JetStreamContext", info: "StreamInfo", subject: str, position: int
) -> AsyncGenerator[Heard, None]:
    """The messages of one new consumer, from a position on, until it has missed one."""
    import nats.errors
    from nats.js import api

    stream = info.config.name or ""
    consumer = await jetstream.add_consumer(
        stream,
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=position,
        ack_policy=api.AckPolicy.NONE,
        filter_subject=subject,
        inactive_threshold=FORGET_S,
        mem_storage=True,
        num_replicas=1,
    )
    pull = await jetstream.pull_subscribe_bind(consumer.name, stream)
    heard = 0
    try:
        while True:
            try:
                batch = await pull.fetch(BATCH, QUIET_S)
            except TimeoutError:
                now = await jetstream.stream_info(stream)
                if now.created != info.created or now.state.last_seq >= position:
                    return
                continue
            for message in batch:
                delivered = message.metadata
                heard += 1
                if delivered.sequence.consumer != heard:
                    return
                position = delivered.sequence.stream + 1
                yield Heard(delivered.sequence.stream, delivered.timestamp, message.data)
    finally:
        with suppress(nats.errors.Error):
            await pull.unsubscribe()
