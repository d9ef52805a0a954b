"""Natural batching: while one batch is being handled, the next one gathers.

A lone item goes at once; under load the batches grow by themselves. Knows nothing of what it carries.
Refuses more items than its queue holds, and never loses or repeats one when a caller goes away.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """The batcher's queue is full: try again later."""


class BatcherClosedError(Exception):
    """The batcher takes no more items."""


class Batcher(Generic[T, R]):
    """Hands what waits, up to `max_items` in order, to `handle`, one batch at a time.

    `handle` returns one result, or one exception, for each item, in order. If it raises, every item of
    the batch gets that exception. `before`, if given, is awaited for each item on its own, before it queues.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_items: int,
        max_queue: int,
        observe: Callable[[int], None] = lambda size: None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._handle = handle
        self._max_items = max_items
        self._max_queue = max_queue
        self._observe = observe
        self._before = before
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many items wait for the next batch."""
        return len(self._waiting)

    async def submit(self, item: T) -> R:
        """Put one item into the next batch and wait for its own result.

        A caller that is cancelled stops waiting; its item is handled all the same.

        Raises QueueFullError, BatcherClosedError, what `before` raised or what `handle` made of this item.
        """
        if self._before is not None:
            await self._before()
        if self._closed:
            raise BatcherClosedError
        if len(self._waiting) >= self._max_queue:
            raise QueueFullError
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    async def aclose(self) -> None:
        """Take no more, and wait until everything taken has its result."""
        self._closed = True
        if self._worker is not None:
            await asyncio.shield(self._worker)

    async def _work(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), self._max_items)
            batch = [self._waiting.popleft() for _ in range(size)]
            self._observe(size)
            results = await self._results([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                _settle(future, result)
        self._worker = None

    async def _results(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            results = await self._handle(items)
        except Exception as exc:  # whatever it was, each caller gets it: nobody may wait for ever
            return [exc] * len(items)
        if len(results) != len(items):
            return [RuntimeError(f"{len(results)} results for {len(items)} items")] * len(items)
        return results


def _settle(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():  # its caller was cancelled; what it submitted has been handled all the same
        return
    if isinstance(result, Exception):
        future.set_exception(result)
        future.exception()  # a caller that has gone leaves no "never retrieved" warning
    else:
        future.set_result(result)
