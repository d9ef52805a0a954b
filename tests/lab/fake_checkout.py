"""A checkout service that answers as a test wants it to: at once, late, or by hanging up."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from lab.bench.wire import Request, RequestReader

Answer = Callable[[Request, int], bytes]


def reply(status: int, order_id: str, style: str = "orchestration", headers: bytes = b"") -> bytes:
    body = json.dumps({"order_id": order_id, "style": style}).encode()
    return b"HTTP/1.1 %d Told\r\n%sContent-Length: %d\r\n\r\n" % (status, headers, len(body)) + body


class FakeServer:
    """A checkout service on a port of its own. `heard` is every request as it came, `paths` what it was for.

    The n-th request (from 1) is answered by `answer`, after `takes_s`, but not before `stalled_until` (in the
    loop's time). It hangs up for b"", and after an answer that says `Connection: close`.
    """

    def __init__(self, answer: Answer, takes_s: float = 0.0) -> None:
        self.answer = answer
        self.takes_s = takes_s
        self.stalled_until = 0.0
        self.heard: list[bytes] = []
        self.paths: list[bytes] = []
        self.connections: list[FakeCheckout] = []
        self.port = 0

    def hang_up(self) -> None:
        """Close every connection that there is."""
        for each in self.connections:
            each.transport.close()


class FakeCheckout(asyncio.Protocol):
    """One connection to a fake server."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._reader = RequestReader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._server.heard.append(data)
        for request in self._reader.feed(data):
            self._server.paths.append(request.path)
            content = self._server.answer(request, len(self._server.paths))
            loop = asyncio.get_running_loop()
            ready_at = max(loop.time(), self._server.stalled_until) + self._server.takes_s
            loop.call_at(ready_at, self._send, content)

    def _send(self, content: bytes) -> None:
        if content:
            self.transport.write(content)
        if not content or b"Connection: close" in content:
            self.transport.close()


@asynccontextmanager
async def fake_checkout(
    answer: Answer, takes_s: float = 0.0, host: str = "127.0.0.1"
) -> AsyncIterator[FakeServer]:
    fake = FakeServer(answer, takes_s)
    listening = await asyncio.get_running_loop().create_server(lambda: FakeCheckout(fake), host, 0)
    async with listening:
        fake.port = listening.sockets[0].getsockname()[1]
        yield fake
