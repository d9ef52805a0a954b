"""Orders that keep coming while a system is changed or broken: open loop, each from a careful client.

An order leaves at its intended time, whatever became of those before; if its first try is not accepted it is
tried again under the same key, for as long as the client's patience lasts. Where a file is given it refuses
to forget: an id is on disk before it counts.
"""

import asyncio
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from lab.client import Call, NoAnswerError, Patience, RefusedError, expect, send
from lab.samples import mixed_order
from lab.synced import SyncedLines

PATIENCE = Patience(60.0, try_s=5.0)
MOST_IN_FLIGHT = 400


@dataclass(frozen=True, slots=True)
class Sent:
    """One order: its number, its key, when it was to leave (seconds since 1970), and how many tries it took.

    `order_id` is None where none was accepted: `trouble` says why.
    """

    number: int
    key: str
    intended: float
    tries: int
    order_id: str | None
    trouble: str = ""

    @property
    def at_first_try(self) -> bool:
        """Whether its first try was accepted."""
        return self.order_id is not None and self.tries == 1


@dataclass(kw_only=True)
class OpenLoop(ABC):
    """Orders, `rate` a second, from `start` to `stop`. `lag_s` is how late it was at worst.

    `style` is what is asked for by name; None: nothing is. `order` and `key` make the body and the
    Idempotency-Key of an order from its number, counted from 0.
    """

    style: str | None
    rate: float
    order: Callable[[int], Mapping[str, Any]] = mixed_order
    key: Callable[[int], str] = lambda _: str(uuid.uuid4())
    sent: list[Sent] = field(default_factory=list)
    lag_s: float = 0.0
    _task: asyncio.Task[None] | None = None
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Begin to place orders."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Place no more, and wait for the answers. Raises what `_run` raises."""
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def abort(self) -> None:
        """Give up at once."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await self._task

    @abstractmethod
    async def _run(self) -> None:
        """Place orders until told to stop, then wait for answers, for a bounded time."""


@dataclass(kw_only=True)
class Traffic(OpenLoop):
    """Traffic of careful clients; the last answer is there within the patience."""

    client: httpx.AsyncClient
    url: str
    accepted: SyncedLines | None = None
    patience: Patience = PATIENCE

    async def _run(self) -> None:
        started, number = time.time(), 0
        async with asyncio.TaskGroup() as tasks:
            slots = asyncio.Semaphore(MOST_IN_FLIGHT)
            while not self._stopped.is_set():
                intended = started + number / self.rate
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, intended - time.time())):
                        await self._stopped.wait()
                        return
                await slots.acquire()
                self.lag_s = max(self.lag_s, time.time() - intended)
                tasks.create_task(self._place(number, intended, slots))
                number += 1

    async def _place(self, number: int, intended: float, slots: asyncio.Semaphore) -> None:
        try:
            self.sent.append(await self._send(number, intended))
        finally:
            slots.release()

    async def _send(self, number: int, intended: float) -> Sent:
        key, tries = self.key(number), 0

        def headers(count: int) -> Mapping[str, str]:
            nonlocal tries
            tries = count
            return {"Idempotency-Key": f'"{key}"', "Prefer": "respond-async"}

        params = {} if self.style is None else {"style": self.style}
        body = json.dumps(self.order(number)).encode()
        call = Call("POST", f"{self.url}/checkouts", headers, params, body)
        try:
            answer = expect(await send(self.client, call, self.patience))
        except (NoAnswerError, RefusedError) as error:
            return Sent(number, key, intended, tries, None, str(error))
        order_id = str(answer["order_id"])
        if self.accepted is not None:
            await self.accepted.add(order_id)
        return Sent(number, key, intended, tries, order_id)


def completions(orders: list[dict[str, object]]) -> dict[str, float | None]:
    """When each order was completed, in seconds since 1970, by id; None: not yet."""
    times = {str(order["order_id"]): order.get("completed_at") for order in orders}
    return {
        order_id: None if at is None else datetime.fromisoformat(str(at)).timestamp()
        for order_id, at in times.items()
    }
