"""Keep-alive connections of the open-loop generator: one order at a time on each, a bounded number of them.

Every order that is sent is told of exactly once, with its reply or with a slug of what went wrong instead.
It refuses to reconnect: on loopback a lost connection is a finding, not weather.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from lab.bench.wire import MalformedMessage, Reply, ReplyReader

CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Due:
    """One order on its way: when it was to leave, by `time.perf_counter`, as what, and of a member or not."""

    intended: float
    request: bytes
    member: bool = False


Answered = Callable[[Due, Reply | None, str | None], None]


class Connections:
    """Keep-alive connections to one server; `answered` hears of every order once.

    It gets the reply, or None and a slug. Where all are busy an order waits; where none is left it fails.
    """

    def __init__(self, answered: Answered) -> None:
        self._answered = answered
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._waiting: deque[Due] = deque()  # at most what the plan holds

    async def open(self, port: int, count: int, host: str = "127.0.0.1") -> None:
        """Connect `count` times. Raises OSError if nothing listens."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for _ in range(count):
                await loop.create_connection(lambda: _Connection(self), host, port)

    def send(self, due: Due) -> None:
        """Send an order now, or once a connection is free."""
        if self._idle:
            self._idle.pop().send(due)
        elif self._open:
            self._waiting.append(due)
        else:
            self._answered(due, None, "no-connection")

    def close(self) -> None:
        """Close all; orders without an answer are told as `unanswered`."""
        while self._waiting:
            self._answered(self._waiting.popleft(), None, "unanswered")
        for connection in list(self._open):
            connection.end("unanswered")

    def opened(self, connection: "_Connection") -> None:
        self._open.add(connection)
        self.freed(connection)

    def freed(self, connection: "_Connection") -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def told(self, due: Due, reply: Reply) -> None:
        self._answered(due, reply, None)

    def lost(self, connection: "_Connection", due: Due | None, slug: str) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if due is not None:
            self._answered(due, None, slug)
        while self._waiting and not self._open:
            self._answered(self._waiting.popleft(), None, "no-connection")


class _Connection(asyncio.Protocol):
    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None
        self._due: Due | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.opened(self)

    def send(self, due: Due) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(due.request)

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._reader.feed(data)
        except MalformedMessage:
            self.end("malformed-reply")
            return
        for reply in replies:
            due, self._due = self._due, None
            if due is None:
                self.end("unasked-reply")
                return
            self._connections.told(due, reply)
            if not reply.keep_alive:
                self.end("connection-closed")
                return
            self._connections.freed(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.end("connection-lost")

    def end(self, slug: str) -> None:
        if self._ended:
            return
        self._ended = True
        due, self._due = self._due, None
        self._connections.lost(self, due, slug)
        if self._transport is not None:
            self._transport.close()
