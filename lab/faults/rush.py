"""A rush of orders: far more than a client library keeps up with, open loop, each tried once.

It refuses to retry: whoever asked again would offer more than the rate that is stated.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import orjson

from lab.bench.connections import Connections, Due
from lab.bench.orders import ACCEPTED
from lab.bench.wire import Reply, encode_request
from lab.traffic import OpenLoop, Sent

CONNECTIONS = 512  # well below the usual bound on open files; an order that finds all of them busy waits


@dataclass(frozen=True, slots=True)
class _Numbered(Due):
    number: int = -1
    key: str = ""


@dataclass(kw_only=True)
class Rush(OpenLoop):
    """Each order has `try_s` for its answer. `stop` raises `OSError` if nothing listened."""

    port: int
    try_s: float
    _left: int = 0
    _all_answered: asyncio.Event = field(default_factory=asyncio.Event)
    _to_wall_s: float = field(default_factory=lambda: time.time() - time.perf_counter())

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
