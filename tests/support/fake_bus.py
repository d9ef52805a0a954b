"""A broker in memory: streams with stamps and sequences, durables with ack floors; it can be down, or wiped.

`FakeBus` offers what `servicekit.bus.Bus` does. Nothing is lost or repeated unless a test says so.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import count

from servicekit.bus import BusUnavailableError, Durable, Published, Stream, StreamState


@dataclass
class Stored:
    """One message in a stream."""

    sequence: int
    subject: str
    data: bytes


@dataclass
class FakeDurable:
    """One durable: what it has acknowledged, what it has handed out, how often, and put off for how long."""

    name: str
    subject: str
    created: str
    metadata: Mapping[str, str]
    settled: set[int] = field(default_factory=set)
    out: set[int] = field(default_factory=set)
    tries: dict[int, int] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    put_off_s: dict[int, float] = field(default_factory=dict)


@dataclass
class FakeStream:
    """One stream."""

    wanted: Stream
    created: str
    messages: list[Stored] = field(default_factory=list)
    durables: dict[str, FakeDurable] = field(default_factory=dict)
    last_sequence: int = 0

    def store(self, subject: str, data: bytes) -> int:
        self.last_sequence += 1
        self.messages.append(Stored(self.last_sequence, subject, data))
        return self.last_sequence

    def state(self) -> StreamState:
        return StreamState(
            self.created, self.messages[0].sequence if self.messages else 0, self.last_sequence
        )

    def ack_floor(self, durable: FakeDurable) -> int:
        # What has left the stream unread counts as unsettled, as it does for a while with the real broker.
        return next(floor for floor in count() if floor + 1 not in durable.settled)

    def seen(self, durable: FakeDurable) -> Durable:
        """As the broker shows a durable."""
        waiting = [
            each
            for each in self.messages
            if fnmatch(each.subject, durable.subject) and each.sequence not in durable.settled
        ]
        return Durable(
            name=durable.name,
            created=durable.created,
            ack_floor=self.ack_floor(durable),
            delivered=max(durable.tries, default=0),
            waiting=len(waiting),
            metadata=durable.metadata,
        )


class FakeBroker:
    """What all the connections share.

    `up`: it answers; `mute`: streams that store what comes, unsaid; `full`: streams that store nothing more;
    `haste`: so many times faster than said it hands out again what was put off.
    """

    def __init__(self) -> None:
        self.streams: dict[str, FakeStream] = {}
        self.up = True
        self.haste = 1.0
        self.mute: set[str] = set()
        self.full: set[str] = set()
        self.buses: list[FakeBus] = []
        self._stamps = count(1)
        self._news = asyncio.Event()

    def stamp(self) -> str:
        """The broker's clock: later at each call."""
        return f"2026-11-22T09:00:00.{next(self._stamps):09d}Z"

    def stop(self) -> None:
        """Answer nobody any more. What is in memory only is gone."""
        self.up = False
        for name in [name for name, each in self.streams.items() if each.wanted.storage == "memory"]:
            del self.streams[name]
        for stream in self.streams.values():
            for durable in stream.durables.values():
                durable.out.clear()
        self.tell()

    def start(self) -> None:
        """Be there again; everybody reconnects."""
        self.up = True
        self.tell()
        for bus in self.buses:
            for told in bus.on_connected:
                told()

    def wipe(self) -> None:
        """Come back with nothing."""
        self.stop()
        self.streams.clear()
        self.start()

    def published(self, stream: str) -> list[bytes]:
        """Everything in a stream."""
        return [each.data for each in self.streams[stream].messages] if stream in self.streams else []

    def stream(self, name: str) -> FakeStream:
        self.check()
        if name not in self.streams:
            raise BusUnavailableError(f"there is no stream {name}")
        return self.streams[name]

    def check(self) -> None:
        if not self.up:
            raise BusUnavailableError("the broker is down")

    def tell(self) -> None:
        """Wake whoever waits for messages."""
        self._news.set()
        self._news = asyncio.Event()

    async def news(self, timeout_s: float) -> None:
        """Wait for a message, or for the time to run out."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass


@dataclass
class FakeMessage:
    """One delivery."""

    broker: FakeBroker
    durable: FakeDurable
    stored: Stored
    tries: int

    @property
    def data(self) -> bytes:
        return self.stored.data

    @property
    def subject(self) -> str:
        return self.stored.subject

    @property
    def sequence(self) -> int:
        return self.stored.sequence

    async def ack(self) -> None:
        self.broker.check()
        self.durable.settled.add(self.sequence)

    async def drop(self) -> None:
        await self.ack()
        self.durable.dropped.append(self.sequence)

    async def working(self) -> None:
        self.broker.check()

    async def retry(self, delay_s: float) -> None:
        self.broker.check()
        waited = self.durable.put_off_s
        waited[self.sequence] = waited.get(self.sequence, 0.0) + delay_s
        asyncio.get_running_loop().call_later(delay_s / self.broker.haste, self._again)

    def _again(self) -> None:
        self.durable.out.discard(self.sequence)
        self.broker.tell()


@dataclass
class FakePull:
    """A reader of one durable."""

    broker: FakeBroker
    stream: str
    durable: str

    async def fetch(self, max_items: int, wait_s: float) -> list[FakeMessage]:
        found = self._ready(max_items)
        if not found:
            await self.broker.news(wait_s)
            found = self._ready(max_items)
        return found

    def _ready(self, max_items: int) -> list[FakeMessage]:
        stream = self.broker.stream(self.stream)
        if self.durable not in stream.durables:
            raise BusUnavailableError(f"there is no durable {self.durable}")
        durable = stream.durables[self.durable]
        found = []
        for stored in stream.messages:
            if stored.sequence in durable.settled or stored.sequence in durable.out:
                continue
            if fnmatch(stored.subject, durable.subject) and len(found) < max_items:
                durable.out.add(stored.sequence)
                durable.tries[stored.sequence] = durable.tries.get(stored.sequence, 0) + 1
                found.append(FakeMessage(self.broker, durable, stored, durable.tries[stored.sequence]))
        return found


class FakeBus:
    """One connection."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.on_connected: list[Callable[[], None]] = []
        broker.buses.append(self)

    @property
    def connected(self) -> bool:
        return self.broker.up

    async def publish(self, subject: str, payload: bytes, timeout_s: float = 2.0) -> Published:
        self.broker.check()
        for name, stream in self.broker.streams.items():
            if any(fnmatch(subject, pattern) for pattern in stream.wanted.subjects):
                if name in self.broker.full:
                    raise BusUnavailableError("no room")
                sequence = stream.store(subject, payload)
                self.broker.tell()
                if name in self.broker.mute:
                    raise BusUnavailableError("no answer")
                return Published(name, sequence)
        raise BusUnavailableError("no stream takes it")

    async def publish_all(
        self, subject: str, payloads: Sequence[bytes], timeout_s: float = 2.0
    ) -> list[Published]:
        return [await self.publish(subject, payload, timeout_s) for payload in payloads]

    async def ensure_stream(self, stream: Stream) -> StreamState:
        self.broker.check()
        made = self.broker.streams.setdefault(stream.name, FakeStream(stream, self.broker.stamp()))
        return made.state()

    async def ensure_durable(
        self,
        stream: str,
        name: str,
        subject: str,
        *,
        ack_wait_s: float,
        metadata: Mapping[str, str] | None = None,
    ) -> Durable:
        found = self.broker.stream(stream)
        if name not in found.durables:
            found.durables[name] = FakeDurable(name, subject, self.broker.stamp(), metadata or {})
            self.broker.tell()
        return found.seen(found.durables[name])

    async def durables(self, stream: str) -> list[Durable]:
        found = self.broker.stream(stream)
        return [found.seen(each) for each in found.durables.values()]

    async def stream_state(self, stream: str) -> StreamState:
        return self.broker.stream(stream).state()

    def pull(self, stream: str, durable: str) -> FakePull:
        return FakePull(self.broker, stream, durable)
