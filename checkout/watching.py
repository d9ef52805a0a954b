"""Who waits for news of an order: clients that asked to (`Prefer: wait`), and event streams.

Register first, then read: then no change can fall in between. Changes made by this process arrive at once;
those of other replicas by `poll`, one query for all watchers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from checkout.orders import Progress

log = logging.getLogger("checkout.watching")

POLL_S = 0.1
MAX_POLLED = 2_000


class Watch:
    """One watcher's view of one order: the newest progress that it has been told."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self._changed = asyncio.Event()
        self._final: asyncio.Future[None] | None = None
        self.closed = False

    def tell(self, progress: Progress) -> None:
        """News; older than what is known is no news."""
        if self.progress is None or progress.version > self.progress.version:
            self.progress = progress
            self._changed.set()
            if progress.is_final:
                self._end_waiting()

    def take_back(self, progress: Progress) -> None:
        """What was told since this was not to be: it is the newest again."""
        if self.progress is not None and self.progress.version > progress.version:
            self.progress = progress
            self._changed.set()

    def close(self) -> None:
        """No more news will come: the process is about to stop."""
        self.closed = True
        self._changed.set()
        self._end_waiting()

    async def change(self, timeout_s: float) -> bool:
        """Wait for news (or the end of all news) for at most `timeout_s`; whether there is any."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        if not self.closed:
            self._changed.clear()
        return True

    async def final(self, timeout_s: float) -> Progress:
        """Wait until no step is pending, for at most `timeout_s`; the newest progress known by then.

        The watch must have been told the progress once.
        """
        assert self.progress is not None
        if timeout_s > 0 and not self.closed and not self.progress.is_final:
            loop = asyncio.get_running_loop()
            self._final = loop.create_future()
            timer = loop.call_later(timeout_s, self._end_waiting)
            try:
                await self._final
            finally:
                timer.cancel()
        return self.progress

    def _end_waiting(self) -> None:
        if self._final is not None and not self._final.done():
            self._final.set_result(None)


class Watchers:
    """All watches of this process, by order."""

    def __init__(self, max_waiters: int = 1_000) -> None:
        self._max_waiters = max_waiters
        self._waiting = 0
        self._watches: dict[str, set[Watch]] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many orders are watched."""
        return len(self._watches)

    @contextmanager
    def watching(self, order_id: str) -> Iterator[Watch]:
        """Watch an order for the length of the block."""
        watch = Watch()
        if self._closed:
            watch.close()
        self._watches.setdefault(order_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[order_id]
            watches.discard(watch)
            if not watches:
                del self._watches[order_id]

    async def final(self, watch: Watch, timeout_s: float) -> Progress:
        """Wait as `Watch.final` does; beyond `max_waiters` at once, without waiting."""
        if self._waiting >= self._max_waiters:
            timeout_s = 0
        self._waiting += 1
        try:
            return await watch.final(timeout_s)
        finally:
            self._waiting -= 1

    def take_back(self, progress: Progress) -> None:
        """What has been told of an order since this could not be written."""
        for watch in self._watches.get(progress.order_id, ()):
            watch.take_back(progress)

    def tell(self, progress: Progress) -> None:
        """Pass on an order's progress."""
        for watch in self._watches.get(progress.order_id, ()):
            watch.tell(progress)

    def close(self) -> None:
        """Send everybody home with what they have."""
        self._closed = True
        for watches in self._watches.values():
            for watch in watches:
                watch.close()

    def seen(self) -> dict[str, int]:
        """The newest version that has been told of each watched order (0: none), at most MAX_POLLED."""
        return {
            order_id: max((w.progress.version for w in watches if w.progress), default=0)
            for order_id, watches in list(self._watches.items())[:MAX_POLLED]
        }

    async def poll(self, refresh: Callable[[Mapping[str, int]], Awaitable[None]]) -> None:
        """For ever: ask what other replicas have changed. For PostgreSQL, where there may be some."""
        while True:
            await asyncio.sleep(POLL_S)
            if seen := self.seen():
                try:
                    await refresh(seen)
                except Exception:
                    log.warning("cannot poll for changes", exc_info=True)
