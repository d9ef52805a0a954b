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
from dataclasses import dataclass, field
from functools import partial

from checkout.journal import Journal
from checkout.metrics import OrderMetrics
from checkout.orders import Emission, Order, Progress
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


@dataclass
class _Running:
    """A pass that runs. `released_but` are the stamps that the releases since it began have left out."""

    style: str
    released_but: set[str] = field(default_factory=set)

    def is_released(self, emission: Emission | None) -> bool:
        """Whether one of them means this order, whose event is there."""
        return any(emission is None or emission.stamp != stamp for stamp in self.released_but)


class Passes:
    """Runs passes, and counts them; `on_room` is called when a later one has ended."""

    def __init__(self, journal: Journal, settings: Settings, metrics: OrderMetrics) -> None:
        self._journal = journal
        self._settings = settings
        self._gauges = {kind: metrics.passes.labels(kind) for kind in ("first", "later")}
        self._running: dict[str, set[asyncio.Task[None]]] = {"first": set(), "later": set()}
        self._later: Counter[str] = Counter()
        self._orders: dict[str, _Running] = {}
        self._next: dict[str, Callable[[], None]] = {}
        self._admitted = 0
        self._closed = False
        self.on_room: Callable[[], None] = lambda: None
        # By style: for how long one more order would wait for its turn.
        self.wait_s: dict[str, Callable[[], float]] = {}

    @contextmanager
    def admission(self, style: str) -> Iterator[Admission]:
        """A place for one more first pass. Raises ProblemError("overloaded") if there is none.

        Nor is there one if it would wait too long for what the style depends on.
        """
        limit, wait_s = self._settings.max_first_passes, self.wait_s.get(style, lambda: 0.0)()
        if wait_s > self._settings.max_service_wait_s:
            raise ProblemError("overloaded", f"A service is {wait_s:.1f} s behind with its orders.")
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

    def release(self, style: str, but_stamp: str) -> None:
        """What the style depends on is back: an order over which a pass is running is due at its end.

        Not if its event was emitted under `but_stamp`.
        """
        for running in self._orders.values():
            if running.style == style:
                running.released_but.add(but_stamp)

    def start(self, kind: str, order: Order, progress: Progress, perform: Perform) -> None:
        """Run one pass over an order in the background; after the one that is running here, if there is."""
        if order.order_id in self._orders:
            self._next[order.order_id] = partial(self.start, kind, order, progress, perform)
            return
        self._orders[order.order_id] = _Running(order.style)
        task = asyncio.create_task(self._run(order, progress, perform), name=f"pass-{order.order_id}")
        self._running[kind].add(task)
        if kind == "later":
            self._later[order.style] += 1
        self._gauges[kind].inc()
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
        del self._orders[order.order_id]
        self._running[kind].discard(task)
        self._gauges[kind].dec()
        start_next = self._next.pop(order.order_id, None)
        if start_next and not self._closed:
            start_next()
        if kind == "later":
            self._later[order.style] -= 1
            self.on_room()

    async def _run(self, order: Order, progress: Progress, perform: Perform) -> None:
        about = {"order_id": order.order_id, "pass_number": progress.passes + 1}
        emission, running = progress.emission, self._orders[order.order_id]
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
        due_at_once = running.is_released(emission)
        pause_s = 0.0 if due_at_once else self._pause_s(progress.passes)
        try:
            await self._journal.end_pass(order.order_id, pause_s, emission, progress.retries)
            if running.is_released(emission) and not due_at_once:  # while that was being written
                await self._journal.end_pass(order.order_id, 0.0, emission, progress.retries)
        except (StorageUnavailableError, QueueFullError, BatcherClosedError):
            log.warning("cannot let go of an order: its lease will run out", extra=about)

    def _pause_s(self, passes: int) -> float:
        longest_s = min(self._settings.resume_min_s * 2.0 ** min(passes, 30), self._settings.resume_max_s)
        return longest_s * random.uniform(0.5, 1)  # noqa: S311 - jitter, no secret
