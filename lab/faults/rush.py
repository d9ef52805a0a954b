"""A rush of orders: far more than a client library keeps up with, open loop, each tried once.

It looks to a cell as `lab.traffic.Traffic` does. It refuses to retry: whoever asked again would offer more
than the rate that is stated.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from lab.bench.connections import Connections, Due
from lab.bench.orders import ACCEPTED
from lab.bench.wire import Reply, encode_request
from lab.traffic import Sent

CONNECTIONS = 512  # well below the usual bound on open files; an order that finds all of them busy waits


@dataclass(frozen=True, slots=True)
class _Numbered(Due):
    number: int = -1
    key: str = ""


@dataclass
class Rush:
    """Orders, `rate` a second, from `start` to `stop`; each has `try_s` for its answer.

    `sent` and `lag_s` are those of `Traffic`.
    """

    port: int
    style: str | None
    rate: float
    try_s: float
    order: Callable[[int], Mapping[str, Any]]
    key: Callable[[int], str]
    sent: list[Sent] = field(default_factory=list)
    lag_s: float = 0.0
    _left: int = 0
    _task: asyncio.Task[None] | None = None
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)
    _all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    _to_wall_s: float = field(default_factory=lambda: time.time() - time.perf_counter())

    def start(self) -> None:
        """Begin to place orders."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Place no more, and wait for the answers: at most one try. Raises `OSError` if nothing listened."""
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def abort(self) -> None:
        """Give up at once."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await self._task

    async def _run(self) -> None:
        connections = Connections(self._hear)
        try:
            await connections.open(self.port, CONNECTIONS)
            await self._send_all(connections)
            if self._left:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.try_s):
                        await self._all_answered.wait()
        finally:
            connections.close()

    async def _send_all(self, connections: Connections) -> None:
        path = "/checkouts" if self.style is None else f"/checkouts?style={self.style}"
        started, number = time.perf_counter(), 0
        while not self._stopped.is_set():
            intended = started + number / self.rate
            await asyncio.sleep(max(0.0, intended - time.perf_counter()))  # replies are read even when late
            self.lag_s = max(self.lag_s, time.perf_counter() - intended)
            key = self.key(number)
            headers = {"Idempotency-Key": f'"{key}"', "Prefer": "respond-async"}
            body = orjson.dumps(self.order(number))
            request = encode_request("POST", path, self.port, body, headers=headers)
            self._left += 1
            connections.send(_Numbered(intended, request, number=number, key=key))
            number += 1

    def _hear(self, due: Due, reply: Reply | None, slug: str | None) -> None:
        assert isinstance(due, _Numbered)
        order_id, trouble = None, slug or ""
        if reply is not None and reply.status in ACCEPTED:
            order_id = str(orjson.loads(reply.body)["order_id"])
        elif reply is not None:
            trouble = f"HTTP {reply.status}"
        self.sent.append(Sent(due.number, due.key, due.intended + self._to_wall_s, 1, order_id, trouble))
        self._left -= 1
        if self._left == 0 and self._stopped.is_set():
            self._all_answered.set()
