"""Stub services that remember whom they were told of, and how often.

They answer as those of `lab.bench.stub` do, which keep nothing but counts. Run as
`python -m lab.bench.remembering`: prints its three ports as one JSON line; each line of its input is a path,
into which it writes, as JSON, how often each order was told to each service; ends when its input does.
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import orjson
import uvloop

from lab.bench.stub import COUNTED, SERVICES, Answers, StubConnection
from lab.bench.wire import Request, encode_reply

BATCH = b"/batch"
WANTS_ORDERS = encode_reply(422, b'{"type":"about:blank","title":"An order_id is wanted","status":422}')


class Remembering(Answers):
    """What the stubs answer, and `told`: by service how often it was told of each order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, Counter[str]] = {name: Counter() for name in SERVICES}

    def answer(self, request: Request) -> bytes:
        """The whole reply to one request, as bytes; a command is remembered before it is answered."""
        path = request.path.removesuffix(BATCH)
        if request.method == b"POST" and path in COUNTED:
            try:
                self.told[COUNTED[path]].update(_order_ids(request, alone=request.path == path))
            except (orjson.JSONDecodeError, KeyError, TypeError):
                return WANTS_ORDERS
        return super().answer(request)


def _order_ids(request: Request, *, alone: bool) -> list[str]:
    told = orjson.loads(request.body)
    return [command["order_id"] for command in ([told] if alone else told["items"])]


async def serve_until_input_ends() -> None:
    """Serve, and write down what was told whenever the parent asks."""
    remembering = Remembering()
    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda: StubConnection(remembering), "127.0.0.1", 0, backlog=1024)
        for _ in SERVICES
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    _say(dict(zip(SERVICES, ports, strict=True)))
    while line := await asyncio.to_thread(sys.stdin.readline):
        await asyncio.to_thread(Path(line.rstrip("\n")).write_bytes, orjson.dumps(remembering.told))
        _say({})


def _say(answer: dict[str, int]) -> None:
    sys.stdout.write(orjson.dumps(answer).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(serve_until_input_ends())
