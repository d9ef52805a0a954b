"""Group commit: all that is to be written at the same time shares one commit; some may wait for that.

Whoever watches an order is told of each change: of one that waits for the disk after its commit, of one that
rides at once. Refuses to hold back more than a queue's length: beyond it everything waits for the disk.
"""

import asyncio
import logging
import math
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any

from checkout.entries import Entry, Written, write
from checkout.leases import End
from checkout.orders import Progress
from checkout.store import Accepted, Change, Placement
from checkout.unwritten import Rider, Unwritten
from checkout.watching import Watchers
from servicekit.batching import Batcher, BatcherClosedError, Observe, QueueFullError
from servicekit.crashpoints import reach
from servicekit.db import Database, StorageUnavailableError

log = logging.getLogger("checkout.journal")

MAX_GROUP = 128
MAX_RIDERS = 512  # in one commit
MAX_QUEUE = 4_000
CLOSING_TRIES = 3
# What rides goes with another's commit after this share of its time: the outcomes of an order come together.
RIPE = 0.25
# For whoever wants all written that somebody may have been told of; then it is as it is.
SETTLE_S = 1.0


class _Wish(Enum):
    """That what rides be written: what is due by now, or all of it."""

    DUE = auto()
    ALL = auto()


Submitted = Placement | Rider | End | _Wish


class GroupCommit:
    """Writes entries of the journal. What may ride waits up to `delay_s` seconds; with 0 nothing does.

    Raises StorageUnavailableError where the database is, and QueueFullError under too much work.
    """

    def __init__(self, database: Database, watchers: Watchers, delay_s: float, observe: Observe) -> None:
        self._database = database
        self._watchers = watchers
        self._delay_s = delay_s
        self.unwritten = Unwritten()
        self._group: Batcher[Submitted, Written] = Batcher(
            self._write_what_waits, max_items=MAX_GROUP, max_queue=MAX_QUEUE, observe=observe
        )
        # Where several write at once, no accept waits for an order that another process holds.
        self._accepts = self._group
        if database.dialect != "sqlite":
            self._accepts = Batcher(self._write, max_items=MAX_GROUP, max_queue=MAX_QUEUE, observe=observe)
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Write what has been submitted, and what rides; take no more."""
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(CLOSING_TRIES):
            await self.settle()
        await self._accepts.aclose()
        await self._group.aclose()

    async def accept(self, placement: Placement) -> Accepted:
        """Make one order durable, or find the order that its idempotency key stands for."""
        accepted = await self._accepts.submit(placement)
        assert isinstance(accepted, Accepted)
        return accepted

    def may_ride(self, change: Change) -> bool:
        """Whether a change that needs no disk may wait for it."""
        # What seems to change nothing is to be held against what is on disk.
        is_news = change.after.version > change.before.version
        return is_news and self._has_room() and self.unwritten.is_sure(change)

    def ride(self, change: Change) -> Rider:
        """Have a change written in time, and tell of it at once."""
        rider = self.unwritten.ride(change, *self._times())
        assert rider.change is not None
        self._watchers.tell(rider.change.after)
        self._arm()
        return rider

    def change(self, change: Change) -> Coroutine[Any, Any, Progress]:
        """Have a change written, with what rides of its order; the order's progress then.

        From now on the order has changed, whenever the result is awaited.
        """
        return self._submitted(self.unwritten.hurry(change))

    async def end(self, end: End) -> None:
        """Have the end of a pass written, in time."""
        if self._has_room():
            self.unwritten.ride_end(end, *self._times())
            self._arm()
        else:
            await self._group.submit(end)

    async def settle(self) -> None:
        """Have all written that somebody may have been told, if that can be done soon."""
        if self.unwritten.is_empty:
            return
        commits = 1 + len(self.unwritten) // MAX_RIDERS
        with suppress(TimeoutError, StorageUnavailableError, QueueFullError, BatcherClosedError):
            async with asyncio.timeout(SETTLE_S):
                for _ in range(commits):
                    await self._group.submit(_Wish.ALL)

    async def _submitted(self, rider: Rider) -> Progress:
        try:
            progress = await self._group.submit(rider)
        except (QueueFullError, BatcherClosedError) as exc:  # it did not even come as far as `_write`
            self._settled(rider, exc)
            raise
        assert isinstance(progress, Progress)
        return progress

    async def _write_what_waits(self, submitted: Sequence[Submitted]) -> Sequence[Written | Exception]:
        """Write what was submitted, and what is ripe of what rides."""
        now = math.inf if _Wish.ALL in submitted else asyncio.get_running_loop().time()
        return await self._write(submitted, self.unwritten.take(now, MAX_RIDERS))

    async def _write(
        self, submitted: Sequence[Submitted], riders: Sequence[Rider] = ()
    ) -> Sequence[Written | Exception]:
        # What rides of an order came after what was submitted of it.
        everything = (*submitted, *riders)
        parts = [_entries(each) for each in everything]
        entries = [entry for part in parts for entry in part]
        try:
            made: Iterator[Written | Exception] = iter(
                await self._database.batch(write, entries) if entries else ()
            )
        except Exception as exc:
            lost = [rider for rider in everything if isinstance(rider, Rider)]
            for rider in lost:
                self._settled(rider, exc)
            if lost:
                about = {"count": len(lost), "error": str(exc)}
                log.warning("changes of orders are not written", extra=about)
            raise
        finally:
            self._arm()
        reach("checkout.after-outcome")
        results = [_first(made, part) for part in parts]
        for each, result in zip(everything, results, strict=True):
            if isinstance(each, Rider):
                self._settled(each, result)
                if isinstance(result, Exception):
                    log.warning("a change of an order cannot be written", extra={"error": str(result)})
            elif isinstance(each, Placement):
                self._accepted(each, result)
        return results[: len(submitted)]

    def _settled(self, rider: Rider, result: Written | Exception) -> None:
        """One rider has been written, or could not be: tell whom it concerns."""
        # Told from here, not by the caller: a pass whose time runs out during the commit tells nobody.
        if isinstance(result, Progress):
            self.unwritten.written(rider, result)
            self._watchers.tell(result)
            rider.settle(result)
            return
        self.unwritten.written(rider, None)
        if rider.change is not None and isinstance(result, Exception):
            self._watchers.take_back(rider.change.before)
            rider.settle(result)

    def _accepted(self, placement: Placement, result: Written | Exception) -> None:
        if isinstance(result, Accepted) and result.progress is not None:
            self.unwritten.know(placement.order.style, result.progress)

    def _has_room(self) -> bool:
        return self._delay_s > 0 and len(self.unwritten) < MAX_QUEUE

    def _times(self) -> tuple[float, float]:
        now = asyncio.get_running_loop().time()
        return now + self._delay_s * RIPE, now + self._delay_s

    def _arm(self) -> None:
        """See to it that what rides is written in time, also where no other commit goes."""
        due_at = self.unwritten.next_due_at
        if self._timer is None and due_at is not None:
            self._timer = asyncio.get_running_loop().call_at(due_at, self._write_soon)

    def _write_soon(self) -> None:
        self._timer = None
        if len(self.unwritten):
            task = asyncio.create_task(self._due())
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _due(self) -> None:
        with suppress(StorageUnavailableError, QueueFullError, BatcherClosedError):
            await self._group.submit(_Wish.DUE)


def _entries(submitted: Submitted) -> list[Entry]:
    """What is to be written; of a rider its change first."""
    if isinstance(submitted, Rider):
        return [each for each in (submitted.change, submitted.end) if each is not None]
    return [] if isinstance(submitted, _Wish) else [submitted]


def _first(made: Iterator[Written | Exception], part: Sequence[Entry]) -> Written | Exception:
    """What has become of the first entry of a part; the others' results are passed over, too."""
    results = [next(made) for _ in part]
    return results[0] if results else None
