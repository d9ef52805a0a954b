"""How many calls and messages orders cost: counters of checkout and of the broker, before and after.

Calls are counted by checkout itself (`step_attempts_total`), messages by what the streams hold of these
orders, and deliveries by the consumers' own count, repeated ones included. It refuses to count while
messages still wait: the difference would be another's.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from lab.errors import FAILED, LabError
from lab.system import CONDUCTOR, System

if TYPE_CHECKING:
    from nats.js import JetStreamContext

ATTEMPTS, ACCEPTED = "step_attempts_total", "orders_accepted_total"
SCRAPE_S = 10.0
DRAINED_WITHIN_S = 20.0
POLL_S = 0.1
MOST_MESSAGES = 10_000


@dataclass(frozen=True)
class Consumer:
    """One consumer: what it is sent, and how many messages it has been sent so far."""

    stream: str
    name: str
    subject: str
    delivered: int


@dataclass(frozen=True)
class Message:
    """One message as its stream holds it, whole."""

    stream: str
    subject: str
    content: bytes


@dataclass(frozen=True)
class Counts:
    """The counters at one moment: calls by service, accepted orders, last sequences by stream, consumers."""

    calls: Mapping[str, float]
    accepted: float
    streams: Mapping[str, int]
    consumers: Sequence[Consumer]

    def delivered(self, consumer: Consumer) -> int:
        """How many messages a consumer had been sent; 0 if it was not there yet."""
        return next(
            (e.delivered for e in self.consumers if (e.stream, e.name) == (consumer.stream, consumer.name)), 0
        )


async def count(client: httpx.AsyncClient, system: System, jetstream: "JetStreamContext") -> Counts:
    """The counters now, once no message waits any more. Raises `LabError` where they cannot be read."""
    streams, consumers = await _drained(jetstream)
    calls, accepted = await _scrape(client, system)
    return Counts(calls, accepted, streams, consumers)


async def delivered(jetstream: "JetStreamContext", stream: str, name: str) -> int:
    """How many messages a consumer has been sent so far, repeated ones included, however many still wait.

    Raises `LabError` where the broker does not tell.
    """
    _, consumers, _ = await _look(jetstream)
    for each in consumers:
        if (each.stream, each.name) == (stream, name):
            return each.delivered
    raise LabError(f"the broker knows no consumer {name} of {stream}", FAILED)


async def messages_since(
    jetstream: "JetStreamContext", before: Counts, after: Counts, order_ids: Sequence[str]
) -> list[Message]:
    """The messages about these orders that came in between. Raises `LabError` where there are too many."""
    import nats.errors
    import nats.js.errors

    found = []
    for stream, last in after.streams.items():
        first = before.streams.get(stream, 0) + 1
        if last - first >= MOST_MESSAGES:
            raise LabError(f"{stream} has too many new messages: somebody else tells, too", FAILED)
        for sequence in range(first, last + 1):
            try:
                message = await jetstream.get_msg(stream, sequence)
            except nats.js.errors.NotFoundError:  # replaced by a later one of its subject
                continue
            except nats.errors.Error as error:
                raise LabError(f"the broker does not answer: {error}", FAILED) from error
            content = message.data or b""
            if any(order_id.encode() in content for order_id in order_ids):
                found.append(Message(stream, message.subject or "", content))
    return found


async def _drained(jetstream: "JetStreamContext") -> tuple[dict[str, int], list[Consumer]]:
    deadline = time.monotonic() + DRAINED_WITHIN_S
    while True:
        streams, consumers, waiting = await _look(jetstream)
        if waiting == 0:
            return streams, consumers
        if time.monotonic() > deadline:
            raise LabError(f"{waiting} messages still wait to be heard: nothing can be counted", FAILED)
        await asyncio.sleep(POLL_S)


async def _look(jetstream: "JetStreamContext") -> tuple[dict[str, int], list[Consumer], int]:
    import nats.errors

    streams, consumers, waiting = {}, [], 0
    try:
        for stream in await jetstream.streams_info():
            name = stream.config.name or ""
            streams[name] = stream.state.last_seq
            for each in await jetstream.consumers_info(name):
                waiting += (each.num_pending or 0) + (each.num_ack_pending or 0)
                delivered = each.delivered.consumer_seq if each.delivered else 0
                consumers.append(Consumer(name, each.name, each.config.filter_subject or ">", delivered))
    except nats.errors.Error as error:
        raise LabError(f"the broker does not tell of its streams: {error}", FAILED) from error
    return streams, consumers, waiting


async def _scrape(client: httpx.AsyncClient, system: System) -> tuple[dict[str, float], float]:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        response = await client.get(f"{system.url(CONDUCTOR)}/metrics", timeout=SCRAPE_S)
        response.raise_for_status()
        families = list(text_string_to_metric_families(response.text))
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise LabError(f"checkout shows no counters: {error!r}", FAILED) from error
    calls: dict[str, float] = {}
    accepted = 0.0
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == ATTEMPTS:
            calls[sample.labels["service"]] = calls.get(sample.labels["service"], 0.0) + sample.value
        elif sample.name == ACCEPTED:
            accepted += sample.value
    return calls, accepted
