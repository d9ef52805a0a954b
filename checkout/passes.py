"""Passes: each is one bounded attempt to finish an order, whatever the style.

A first pass follows the accept at once; there may be only so many in memory, and one more is refused before
its order is accepted. What a pass leaves unfinished is let go, to be resumed later.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from checkout.journal import Journal
from checkout.metrics import OrderMetrics
from checkout.orders import Order, Progress
from checkout.settings import Settings
from servicekit.batching import BatcherClosedError, QueueFullError
from servicekit.db import StorageUnavailableError
from servicekit.problems import ProblemError

log = logging.getLogger("checkout.passes")

Perform = Callable[[Order, Progress], Awaitable[Progress]]
"""One pass over an order in its style; the newest progress that it knows of."""


class Admission:
    """A place among the first passes, held while an order is being accepted."""

    def __init__(self, passes: "Passes") -> None:
        self._passes = passes

    def start(self, order: Order, progress: Progress, perform: Perform) -> None:
        """Use the place: start the order's first pass."""
        self._passes.start("first", order, progress, perform)


class Passes:
    """Runs passes, and counts them; `on_room` is called when a later one has ended."""

    def __init__(self, journal: Journal, settings: Settings, metrics: OrderMetrics) -> None:
        self._journal = journal
        self._settings = settings
        self._metrics = metrics
        self._running: dict[str, set[asyncio.Task[None]]] = {"first": set(), "later": set()}
        self._later: Counter[str] = Counter()
        self._orders: set[str] = set()
        self._next: dict[str, Callable[[], None]] = {}
        self._releases: Counter[str] = Counter()
        self._admitted = 0
        self._closed = False
        self.on_room: Callable[[], None] = lambda: None

    @contextmanager
    def admission(self) -> Iterator[Admission]:
        """A place for one more first pass. Raises ProblemError("overloaded") if there is none."""
        limit = self._settings.max_first_passes
        if self._closed or self._admitted + len(self._running["first"]) >= limit:
            raise ProblemError("overloaded", f"{limit} orders are being worked on already.")
        self._admitted += 1
        try:
            yield Admission(self)
        finally:
            self._admitted -= 1

    def room(self, style: str) -> int:
        """How many more later passes of a style may start."""
        return 0 if self._closed else max(0, self._settings.max_later_passes - self._later[style])

    def release(self, style: str) -> None:
        """What the style depends on is back: a pass that began before, and in vain, is soon repeated."""
        self._releases[style] += 1

    def start(self, kind: str, order: Order, progress: Progress, perform: Perform) -> None:
        """Run one pass over an order in the background; after the one that is running here, if there is."""
        if order.order_id in self._orders:
            self._next[order.order_id] = partial(self.start, kind, order, progress, perform)
            return
        self._orders.add(order.order_id)
        task = asyncio.create_task(self._run(order, progress, perform), name=f"pass-{order.order_id}")
        self._running[kind].add(task)
        if kind == "later":
            self._later[order.style] += 1
        self._metrics.passes.labels(kind).inc()
        task.add_done_callback(lambda done: self._ended(kind, order, done))

    async def aclose(self, timeout_s: float) -> None:
        """Let what runs go on for a moment, then stop it: what is unfinished will be resumed."""
        self._closed = True
        tasks = [task for running in self._running.values() for task in running]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _ended(self, kind: str, order: Order, task: asyncio.Task[None]) -> None:
        self._orders.discard(order.order_id)
        self._running[kind].discard(task)
        self._metrics.passes.labels(kind).dec()
        start_next = self._next.pop(order.order_id, None)
        if start_next and not self._closed:
            start_next()
        if kind == "later":
            self._later[order.style] -= 1
            self.on_room()

    async def _run(self, order: Order, progress: Progress, perform: Perform) -> None:
        about = {"order_id": order.order_id, "pass_number": progress.passes + 1}
        emission, releases = progress.emission, self._releases[order.style]
        try:
            async with asyncio.timeout(self._settings.pass_timeout_s):
                reached = await perform(order, progress)
            if reached.is_final:
                return
            emission = reached.emission
        except TimeoutError:
            log.warning("pass ran out of time", extra=about)
        except Exception:
            log.warning("pass broke off", extra=about, exc_info=True)
        in_vain = releases != self._releases[order.style] and emission in (None, progress.emission)
        pause_s = 0.0 if in_vain else self._pause_s(progress.passes)
        try:
            await self._journal.end_pass(order.order_id, pause_s, emission, progress.retries)
        except (StorageUnavailableError, QueueFullError, BatcherClosedError):
            log.warning("cannot let go of an order: its lease will run out", extra=about)

    def _pause_s(self, passes: int) -> float:
        longest_s = min(self._settings.resume_min_s * 2.0 ** min(passes, 30), self._settings.resume_max_s)
        return longest_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
