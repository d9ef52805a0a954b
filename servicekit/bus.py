"""Messages through NATS JetStream: stored before they count as published, pulled and acknowledged one by one.

Entering a `Bus` never waits for the broker: it connects, and connects anew, for ever, in the background;
while there is no connection everything fails at once, and nothing is buffered. Refuses to guess: without an
answer it is unknown whether the broker did as it was asked. Nor is there one for a client without the right.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import orjson

from servicekit.link import NANOSECONDS, BusUnavailableError, Links, RefusedError
from servicekit.pull import Message, Pull
from servicekit.settings import ServiceSettings

__all__ = ["Bus", "BusUnavailableError", "Durable", "Message", "Published", "Pull", "Stream", "StreamState"]

CONTENT_TYPE = {"Content-Type": "application/cloudevents+json"}
API_TIMEOUT_S = 2.0
ENDING_WAIT_S = 2.0
MAX_ACK_PENDING = 1_000
MAX_PAGES = 100
DIFFERENT_STREAM_EXISTS = 10058
COMMIT = "Nats-Batch-Commit"
# What the broker takes in a batch.
MAX_TOGETHER = 1_000


@dataclass(frozen=True)
class Published:
    """Where a message is stored."""

    stream: str
    sequence: int


@dataclass(frozen=True)
class Stream:
    """What a stream is to be; 0 seconds and -1 are no bound. At its bounds the oldest messages go."""

    name: str
    subjects: tuple[str, ...]
    storage: Literal["file", "memory"] = "file"
    max_age_s: float = 0
    max_bytes: int = -1
    max_per_subject: int = -1
    replicas: int = 1


@dataclass(frozen=True)
class StreamState:
    """How a stream stands. `created` is the broker's stamp (RFC 3339): another stamp, another stream."""

    created: str
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True)
class Durable:
    """A durable consumer; up to the stream's sequence `ack_floor` everything is acknowledged.

    Nothing after `delivered` has been delivered yet; `waiting` messages have yet to be acknowledged.
    `created` is RFC 3339 in UTC with nine decimals, so that it sorts as text.
    """

    name: str
    created: str
    ack_floor: int
    delivered: int
    waiting: int
    metadata: Mapping[str, str]


class Bus:
    """One service's connection to the broker, as the user that its settings name.

    `on_connected` are called after each connection and reconnection.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._links = Links(settings)
        self._task: asyncio.Task[None] | None = None
        self._atomic = True  # until the broker shows that it knows no batches

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._links.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task], timeout=ENDING_WAIT_S)

    @property
    def on_connected(self) -> list[Callable[[], None]]:
        """Whom to call after each connection and reconnection."""
        return self._links.on_connected

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._links.current is not None

    async def publish(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> Published:
        """Have one message stored, on disk if that is its stream's storage.

        Raises BusUnavailableError; the message may be stored all the same.
        """
        stored = await self._links.link.ask(subject, payload, timeout_s, CONTENT_TYPE)
        return Published(stored["stream"], stored["seq"])

    async def publish_all(
        self, subject: str, payloads: Sequence[bytes], timeout_s: float = 2.0
    ) -> list[Published]:
        """Have messages stored in one go, in order, at most MAX_TOGETHER: all of them, or none.

        To a broker that knows no atomic batches (nats-server before 2.12) they go one by one.
        Raises BusUnavailableError; any of them may be stored all the same.
        """
        if len(payloads) > MAX_TOGETHER:
            raise ValueError(f"{len(payloads)} messages at once: at most {MAX_TOGETHER}")
        if len(payloads) > 1 and self._atomic:
            last = await self._publish_atomically(subject, payloads, timeout_s)
            if last is not None:
                first = last.sequence - len(payloads) + 1
                return [Published(last.stream, first + place) for place in range(len(payloads))]
        # Each is sent before the first is answered.
        return await asyncio.gather(*(self.publish(subject, payload, timeout_s) for payload in payloads))

    async def _publish_atomically(
        self, subject: str, payloads: Sequence[bytes], timeout_s: float
    ) -> Published | None:
        """Where the last message is; None if the broker takes no such batch. Its source: NATS ADR-50."""
        link, batch = self._links.link, secrets.token_hex(12)
        try:
            async with asyncio.timeout(timeout_s):
                for number, payload in enumerate(payloads[:-1], 1):
                    await link.send(subject, payload, headers=_batch_headers(batch, number))
                headers = {**_batch_headers(batch, len(payloads)), COMMIT: "1"}
                stored = await link.ask(subject, payloads[-1], timeout_s, headers)
        except TimeoutError:
            raise BusUnavailableError(link.silence(f"no answer within {timeout_s:g} s")) from None
        except RefusedError:  # nothing of it is stored: the stream takes no batches, or no more of them now
            return None
        if stored.get("count") != len(payloads):  # it has stored them one by one, and told of the last
            self._atomic = False
            return None
        return Published(stored["stream"], stored["seq"])

    async def ensure_stream(self, stream: Stream) -> StreamState:
        """Create the stream, or bring it to what it is to be. Raises BusUnavailableError."""
        config = orjson.dumps(
            {
                "name": stream.name,
                "subjects": stream.subjects,
                "retention": "limits",
                "storage": stream.storage,
                "discard": "old",
                "max_age": int(stream.max_age_s * NANOSECONDS),
                "max_bytes": stream.max_bytes,
                "max_msgs_per_subject": stream.max_per_subject,
                "max_msgs": -1,
                "max_consumers": -1,
                "max_msg_size": -1,
                "num_replicas": stream.replicas,
                "allow_atomic": True,
            }
        )
        try:
            return _state(await self._api(f"STREAM.CREATE.{stream.name}", config))
        except RefusedError as exc:
            if exc.code != DIFFERENT_STREAM_EXISTS:
                raise
        return _state(await self._api(f"STREAM.UPDATE.{stream.name}", config))

    async def stream_state(self, stream: str) -> StreamState:
        """How a stream stands. Raises BusUnavailableError, also if there is no such stream."""
        return _state(await self._api(f"STREAM.INFO.{stream}"))

    async def ensure_durable(
        self,
        stream: str,
        name: str,
        subject: str,
        *,
        ack_wait_s: float,
        metadata: Mapping[str, str] | None = None,
    ) -> Durable:
        """Create a durable pull consumer of everything on `subject`, or bring it to this configuration.

        What it has acknowledged stays so. Raises BusUnavailableError.
        """
        config = {
            "name": name,
            "durable_name": name,
            "filter_subject": subject,
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait_s * NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": MAX_ACK_PENDING,
            "metadata": metadata or {},
        }
        request = orjson.dumps({"stream_name": stream, "config": config})
        return _durable(await self._api(f"CONSUMER.CREATE.{stream}.{name}.{subject}", request))

    async def durables(self, stream: str) -> list[Durable]:
        """The stream's durable consumers, as far as the broker knows them now. Raises BusUnavailableError."""
        found: list[Durable] = []
        seen = 0
        for _ in range(MAX_PAGES):
            page = await self._api(f"CONSUMER.LIST.{stream}", orjson.dumps({"offset": seen}))
            consumers = page.get("consumers") or []
            found.extend(_durable(each) for each in consumers if each["config"].get("durable_name"))
            seen += len(consumers)
            if not consumers or seen >= page["total"]:
                return found
        raise BusUnavailableError(f"{stream} has too many consumers")

    def pull(self, stream: str, durable: str) -> Pull:
        """A reader of a durable consumer's messages."""
        return Pull(self._links, stream, durable)

    async def _api(self, verb: str, request: bytes = b"") -> dict[str, Any]:
        return await self._links.link.ask(self._links.api + verb, request, API_TIMEOUT_S)


def _batch_headers(batch: str, number: int) -> dict[str, str]:
    return {**CONTENT_TYPE, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}


def _state(info: Mapping[str, Any]) -> StreamState:
    state = info["state"]
    return StreamState(sortable(info["created"]), state["first_seq"], state["last_seq"])


def _durable(info: Mapping[str, Any]) -> Durable:
    return Durable(
        name=info["name"],
        created=sortable(info["created"]),
        ack_floor=info["ack_floor"]["stream_seq"],
        delivered=info["delivered"]["stream_seq"],
        waiting=info["num_pending"] + info["num_ack_pending"],
        metadata=info["config"].get("metadata") or {},
    )


def sortable(stamp: str) -> str:
    """A time as the broker writes it, with nine decimals."""
    # Go leaves out trailing zeros, and `.12Z` sorts after `.123Z`.
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}Z"
