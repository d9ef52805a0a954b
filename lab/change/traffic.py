"""Orders that keep coming while a system is changed: open loop, each placed as a careful client does.

An order leaves at its intended time, whatever became of those before; if its first try is not accepted it is
tried again under the same key, for a minute at most. It refuses to forget: an id is on disk before it counts.
"""

import asyncio
import json
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import httpx

from lab.client import Call, NoAnswerError, Patience, RefusedError, expect, send
from lab.samples import mixed_order
from lab.synced import SyncedLines

PATIENCE = Patience(60.0, try_s=5.0)
MOST_IN_FLIGHT = 400


@dataclass(frozen=True, slots=True)
class Sent:
    """One order: when it was to leave, in seconds since 1970, and whether its first try was accepted.

    `order_id` is None where none was: `trouble` says why.
    """

    intended: float
    at_first_try: bool
    order_id: str | None
    trouble: str = ""


@dataclass
class Traffic:
    """Orders of one style, `rate` a second, from `start` to `stop`. `lag_s` is how late it was at worst."""

    client: httpx.AsyncClient
    url: str
    style: str
    rate: float
    accepted: SyncedLines
    sent: list[Sent] = field(default_factory=list)
    lag_s: float = 0.0
    _task: asyncio.Task[None] | None = None
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self) -> None:
        """Begin to place orders."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Place no more, and wait for the answers: at most the patience with the last one."""
        self._stopped.set()
        if self._task is not None:
            await self._task

    async def abort(self) -> None:
        """Give up at once."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

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
        headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": "respond-async"}
        body = json.dumps(mixed_order(number)).encode()
        call = Call("POST", f"{self.url}/checkouts", lambda _: headers, {"style": self.style}, body)
        try:
            answer = await send(self.client, call, PATIENCE)
            order_id = str(expect(answer)["order_id"])
        except (NoAnswerError, RefusedError) as error:
            return Sent(intended, False, None, str(error))
        await self.accepted.add(order_id)
        return Sent(intended, answer.tries == 1, order_id)


def completions(orders: list[dict[str, object]]) -> dict[str, float | None]:
    """When each order was completed, in seconds since 1970, by id; None: not yet."""
    times = {str(order["order_id"]): order.get("completed_at") for order in orders}
    return {
        order_id: None if at is None else datetime.fromisoformat(str(at)).timestamp()
        for order_id, at in times.items()
    }
