"""Natural batching: while a batch is being handled, the next one gathers.

A lone item goes at once; under load the batches grow by themselves. Knows nothing of what it carries.
Refuses more items than its queue holds, and never loses or repeats one when a caller goes away.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LATELY = 1 / 16  # what the last item counts in the mean distance of items
GAPS = 4  # times `young_s`: the longest distance that counts, so that a pause is soon forgotten
OVER_S = 0.0005  # a wait shorter than half of a timer's millisecond is over: a timer would only spin

Observe = Callable[[int, float], None]
"""Told of each batch as it starts: its size in items, and for how many seconds its oldest one has waited."""


def ignore(size: int, age_s: float) -> None:
    """Take no notice of a batch."""


class QueueFullError(Exception):
    """The batcher's queue is full: try again later."""


class BatcherClosedError(Exception):
    """The batcher takes no more items."""


@dataclass(frozen=True, slots=True)
class _Lot(Generic[T, R]):
    """Items that came together, and stay together; `since` is by the loop's clock, in seconds."""

    items: Sequence[T]
    weight: int
    since: float
    results: asyncio.Future[list[R | Exception]]


class Batcher(Generic[T, R]):
    """Hands what waits, in order, to `handle`: a batch of up to `max_items`, and of up to `max_weight`.

    `handle` returns one result, or one exception, for each item, in order. If it raises, every item of
    the batch gets that exception. `before`, if given, is awaited for each item on its own, before it queues.

    Up to `in_flight` batches are handled at once, of up to `max_in_hand` items together. Where there may be
    several, an item waits for company only while the newest of them is younger than `young_s`: one that takes
    long holds nobody up. And only while what was submitted lately came, on average, closer together than
    that: else nobody would join it.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_items: int,
        max_queue: int,
        max_weight: int | None = None,
        weigh: Callable[[T], int] = lambda item: 0,
        in_flight: int = 1,
        max_in_hand: int | None = None,
        young_s: float = 0.0,
        observe: Observe = ignore,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._handle = handle
        self._max_items = max_items
        self._max_queue = max_queue
        self._max_weight = max_weight
        self._weigh = weigh
        self._in_flight = in_flight
        self._max_in_hand = max_in_hand
        self._in_hand = 0
        self._young_s = young_s
        self._observe = observe
        self._before = before
        self._waiting: deque[_Lot[T, R]] = deque()
        self._queued = 0
        self._queued_weight = 0
        self._running: dict[asyncio.Task[None], float] = {}
        self._came_at = -math.inf
        self._gap_s = 0.0  # between lots, lately; at first company is expected
        self._looks_soon = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many items wait for the next batch."""
        return self._queued

    @property
    def in_hand(self) -> int:
        """How many items are in batches that are being handled."""
        return self._in_hand

    async def submit(self, item: T) -> R:
        """Put one item into the next batch and wait for its own result.

        A caller that is cancelled stops waiting; its item is handled all the same.

        Raises QueueFullError, BatcherClosedError, what `before` raised or what `handle` made of this item.
        """
        if self._before is not None:
            await self._before()
        (result,) = await self._queue([item])
        if isinstance(result, Exception):
            raise result.with_traceback(None)  # others raise the same one
        return result

    async def submit_all(self, items: Sequence[T]) -> Sequence[R | Exception]:
        """Put items, at most `max_items`, into one batch together; the result or the error of each, in order.

        With a `before` each goes by itself, as soon as it may. Raises QueueFullError, BatcherClosedError.
        """
        if self._before is None:
            return await self._queue(items)
        return await asyncio.gather(*(self._result(item) for item in items))

    async def aclose(self) -> None:
        """Take no more, and wait until everything taken has its result."""
        self._closed = True
        while self._running or self._waiting:
            self._start()
            await asyncio.wait(set(self._running))

    async def _result(self, item: T) -> R | Exception:
        try:
            return await self.submit(item)
        except Exception as exc:
            return exc

    async def _queue(self, items: Sequence[T]) -> Sequence[R | Exception]:
        if self._closed:
            raise BatcherClosedError
        if self._queued + len(items) > self._max_queue:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        lot: _Lot[T, R] = _Lot(items, sum(map(self._weigh, items)), loop.time(), loop.create_future())
        self._waiting.append(lot)
        gap_s = min(lot.since - self._came_at, GAPS * self._young_s)
        self._gap_s += (gap_s - self._gap_s) * LATELY
        self._came_at = lot.since
        self._queued += len(items)
        self._queued_weight += lot.weight
        self._start_soon()
        return await lot.results

    def _start_soon(self) -> None:
        """Start what may start, at the end of this turn of the loop: whoever comes in it is in the batch."""
        if not self._looks_soon and self._has_room():
            self._looks_soon = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._looks_soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and self._has_room():
            wait_s = self._wait_s()
            if wait_s > OVER_S:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._start)
                return
            lots = self._take()
            size = sum(len(lot.items) for lot in lots)
            task = asyncio.create_task(self._run(lots))
            self._running[task] = asyncio.get_running_loop().time()
            self._in_hand += size
            task.add_done_callback(partial(self._ended, size=size))

    def _has_room(self) -> bool:
        has_place = self._max_in_hand is None or self._in_hand < self._max_in_hand
        return has_place and len(self._running) < self._in_flight

    def _wait_s(self) -> float:
        """For how long what waits may still wait for company."""
        if not self._running or self._closed or self._is_full() or self._gap_s >= self._young_s:
            return 0.0
        return max(self._running.values()) + self._young_s - asyncio.get_running_loop().time()

    def _is_full(self) -> bool:
        too_heavy = self._max_weight is not None and self._queued_weight >= self._max_weight
        return self._queued >= self._max_items or too_heavy

    def _take(self) -> list[_Lot[T, R]]:
        lots: list[_Lot[T, R]] = []
        most = self._max_items
        if self._max_in_hand is not None:
            most = min(most, self._max_in_hand - self._in_hand)
        count = weight = 0
        while self._waiting:
            lot = self._waiting[0]
            count, weight = count + len(lot.items), weight + lot.weight
            too_heavy = self._max_weight is not None and weight > self._max_weight
            if lots and (count > most or too_heavy):
                break
            lots.append(self._waiting.popleft())
            self._queued -= len(lot.items)
            self._queued_weight -= lot.weight
        return lots

    async def _run(self, lots: Sequence[_Lot[T, R]]) -> None:
        items = [item for lot in lots for item in lot.items]
        try:
            self._observe(len(items), asyncio.get_running_loop().time() - lots[0].since)
            results = await self._results(items)
        except asyncio.CancelledError:  # the loop is ending: nobody may wait for ever
            for lot in lots:
                lot.results.cancel()
            raise
        taken = 0
        for lot in lots:
            if (
                not lot.results.done()
            ):  # else its caller was cancelled; its items have been handled all the same
                lot.results.set_result(list(results[taken : taken + len(lot.items)]))
            taken += len(lot.items)

    async def _results(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            results = await self._handle(items)
        except Exception as exc:  # whatever it was, each caller gets it: nobody may wait for ever
            return [exc] * len(items)
        if len(results) != len(items):
            return [RuntimeError(f"{len(results)} results for {len(items)} items")] * len(items)
        return results

    def _ended(self, task: asyncio.Task[None], size: int) -> None:
        del self._running[task]
        self._in_hand -= size
        if self._waiting:
            self._start_soon()
