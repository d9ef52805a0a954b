"""Three stub services in one process: they answer at once, so that the conductor alone is measured.

Each reply has the shape of the real service's and the order id of its request; nothing is stored but counts.
`POST /checkouts` is answered too, with a canned order: against it the generator finds its own ceiling.
Run as `python -m lab.bench.stub`: prints its three ports as one JSON line, ends when its input does. A line
of input is a manner, in JSON, in which they answer commands from then on; it is answered with `{}`.
"""

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson
import uvloop

from lab.bench.wire import MalformedMessage, Request, RequestReader, encode_reply

SERVICES = ("email", "warehouse", "rewards")
COUNTED = {b"/emails": "email", b"/shipments": "warehouse", b"/balances": "rewards"}

BATCH = b"/batch"

NOT_FOUND = encode_reply(404, b'{"type":"about:blank","title":"Not Found","status":404}')
READY = encode_reply(200, b'{"status":"ready"}')
WANTS_ORDER = encode_reply(422, b'{"type":"about:blank","title":"An order_id is wanted","status":422}')


@dataclass(frozen=True, slots=True)
class Manner:
    """How the stubs answer commands: after `delay_s`, and each `hangs_every`th request to a service never.

    A request with many commands takes that time, or hangs, as one. 0: at once, and none hangs.
    """

    delay_s: float = 0.0
    hangs_every: int = 0


class Answers:
    """What the stubs answer, and how often each was called. Shared by all connections of the process."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.behave(Manner())
        self._numbers = itertools.count(1)
        self._effects: dict[bytes, Callable[[dict[str, Any]], dict[str, Any]]] = {
            b"/emails": lambda _: {"delivery": "queued"},
            b"/shipments": lambda _: {"shipment_id": self._new_id(), "state": "preparing"},
            b"/balances": self._balance,
        }

    def behave(self, manner: Manner) -> None:
        """Answer commands in this manner from now on; which requests hang is counted anew."""
        self._manner = manner
        # An order's three requests come together, and must not hang together.
        step = manner.hangs_every // len(SERVICES)
        self._requests = {path: itertools.count(number * step + 1) for number, path in enumerate(COUNTED)}

    def wait_s(self, request: Request) -> float | None:
        """How long the request waits for its answer, in seconds; None: it hangs, and has no effect."""
        numbers = self._requests.get(request.path.removesuffix(BATCH))
        if numbers is None:
            return 0.0
        every = self._manner.hangs_every
        return None if every and next(numbers) % every == 0 else self._manner.delay_s

    def answer(self, request: Request) -> bytes:
        """The whole reply to one request, as bytes."""
        if request.method == b"POST":
            path = request.path.removesuffix(BATCH)
            effect = self._effects.get(path)
            if effect is not None:
                return self._perform(request, path, effect)
            return self._checkout() if request.path == b"/checkouts" else NOT_FOUND
        if request.path == b"/readyz":
            return READY
        return encode_reply(200, orjson.dumps(self.counts)) if request.path == b"/counts" else NOT_FOUND

    def _perform(
        self, request: Request, path: bytes, effect: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> bytes:
        alone = request.path == path
        try:
            told = orjson.loads(request.body)
            commands = [told] if alone else told["items"]
            replies = [{"order_id": command["order_id"], **effect(command)} for command in commands]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return WANTS_ORDER
        self.counts[COUNTED[path]] += len(replies)
        if alone:
            return encode_reply(201, orjson.dumps(replies[0]))
        results = [{"status": 201, "body": reply} for reply in replies]
        return encode_reply(200, orjson.dumps({"results": results}))

    def _balance(self, command: dict[str, Any]) -> dict[str, Any]:
        points = command["total_minor"] // 100
        return {"balance_id": self._new_id(), "points": points, "balance": points}

    def _checkout(self) -> bytes:
        then = "2026-01-01T00:00:00.000000Z"
        step = {"status": "succeeded", "attempts": 1, "result": {"delivery": "queued"}, "finished_at": then}
        line = {"sku": "BOOK-1", "quantity": 1, "unit_price_minor": 1999}
        checkout = {
            "order_id": self._new_id(),
            "style": "orchestration",
            "status": "completed",
            "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
            "currency": "GBP",
            "lines": [line, line],
            "ship_to": {"name": "Ada Lovelace", "line1": "12 St James Sq", "city": "London", "country": "GB"},
            "total_minor": 3998,
            "accepted_at": then,
            "completed_at": then,
            "steps": dict.fromkeys(SERVICES, step),
        }
        return encode_reply(201, orjson.dumps(checkout))

    def _new_id(self) -> str:
        return f"00000000-0000-7000-8000-{next(self._numbers):012x}"


class StubConnection(asyncio.Protocol):
    """One keep-alive connection; a malformed request ends it."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        try:
            requests = self._reader.feed(data)
        except MalformedMessage:
            self._transport.close()
            return
        for request in requests:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        wait_s = self._answers.wait_s(request)
        if wait_s is None:
            return
        content = self._answers.answer(request)
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._send, content)
        else:
            self._send(content)

    def _send(self, content: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():  # the client may have given up
            self._transport.write(content)


async def listen(answers: Answers) -> tuple[asyncio.Server, int]:
    """A stub service on a free port of the loopback, and that port."""
    server = await asyncio.get_running_loop().create_server(
        lambda: StubConnection(answers), "127.0.0.1", 0, backlog=1024
    )
    port: int = server.sockets[0].getsockname()[1]
    return server, port


async def serve_until_input_ends() -> None:
    answers = Answers()
    listening = {name: await listen(answers) for name in SERVICES}
    ports = {name: port for name, (_, port) in listening.items()}
    _tell(ports)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: _Parent(answers, ended), sys.stdin)
    await ended.wait()
    transport.close()
    for server, _ in listening.values():
        server.close()


def _tell(told: dict[str, int]) -> None:
    sys.stdout.write(orjson.dumps(told).decode() + "\n")
    sys.stdout.flush()


class _Parent(asyncio.Protocol):
    """The parent tells us manners by our standard input, and holds it open: when it is gone, so are we."""

    def __init__(self, answers: Answers, ended: asyncio.Event) -> None:
        self._answers = answers
        self._ended = ended
        self._begun = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._answers.behave(Manner(**orjson.loads(line)))
            _tell({})

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()


if __name__ == "__main__":
    uvloop.run(serve_until_input_ends())
