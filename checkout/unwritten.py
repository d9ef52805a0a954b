"""What has come about with orders and is not on disk yet: the newest progress, and what may ride.

A change may ride if nothing is lost should it never be written: then whoever finds the order unfinished does
its part again, and everybody answers as before. It waits a moment for a commit that goes anyway, and what
comes of the same order meanwhile is written with it. Refuses to do any I/O: the journal writes.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from checkout.leases import End
from checkout.orders import Progress
from checkout.store import Change

# Of unfinished orders, whose outcomes come one by one; of an older one the progress is read again.
MAX_KNOWN = 20_000
# More than come to their end while somebody works with what was seen of one before.
MAX_FINISHED = 50_000


@dataclass(eq=False)
class Rider:
    """What is to be written of one order; `written` want to hear of it. An urgent one waits for nobody.

    By the loop's clock it goes with anybody's commit from `ripe_at` on, and at `due_at` by one of its own.
    """

    ripe_at: float
    due_at: float
    change: Change | None = None
    end: End | None = None
    written: list[asyncio.Future[Progress]] = field(default_factory=list)
    is_urgent: bool = False

    def settle(self, result: Progress | Exception) -> None:
        """Tell who waits what the order has come to, or why it could not be written."""
        for each in self.written:
            if each.done():  # its waiter was cancelled
                continue
            if isinstance(result, Exception):
                each.set_exception(result)
            else:
                each.set_result(result)


class Unwritten:
    """By order: what rides, oldest first, and the newest progress that anything here has come to."""

    def __init__(self) -> None:
        self._riders: dict[str, Rider] = {}
        self._newest: dict[str, Progress] = {}
        self._told: dict[str, Progress] = {}
        self._known: dict[str, tuple[str, Progress]] = {}
        self._finished: dict[str, None] = {}
        self._urgent: Counter[str] = Counter()
        self._in_hand = 0

    def __len__(self) -> int:
        """How many orders have something that rides."""
        return len(self._riders)

    @property
    def is_empty(self) -> bool:
        """Whether all is written: what rode, and what anybody has been told."""
        return not self._riders and not self._newest and not self._in_hand

    @property
    def next_due_at(self) -> float | None:
        """When the oldest rider is due."""
        return next((rider.due_at for rider in self._riders.values()), None)

    def know(self, style: str, progress: Progress) -> None:
        """Keep an unfinished order's progress at hand, as the database has it; never an older one."""
        _, known = self._known.pop(progress.order_id, ("", None))
        if known is not None and known.version > progress.version:
            progress = known
        if not progress.is_final:
            self._known[progress.order_id] = style, progress
            if len(self._known) > MAX_KNOWN:
                del self._known[next(iter(self._known))]

    def changed(self, style: str, progress: Progress) -> None:
        """An order has been changed to this by another way: whoever goes on with it goes on from there."""
        self._newest.pop(progress.order_id, None)
        self._told.pop(progress.order_id, None)
        self._note_end(progress)
        self.know(style, progress)

    def is_sure(self, change: Change) -> bool:
        """Whether a change starts from the order's newest progress, as far as is known here.

        Not while an urgent one is being written: nobody is to be told of that yet.
        """
        if self._urgent[change.order_id]:
            return False
        newest = self._newest.get(change.order_id)
        return change.order_id not in self._finished if newest is None else newest is change.before

    def known(self, order_id: str, style: str) -> Progress | None:
        """The newest progress of an order of this style, if it is at hand."""
        its_style, progress = self._known.get(order_id, ("", None))
        return self._newest.get(order_id) or progress if its_style == style else None

    def forget(self, order_id: str) -> None:
        """What is at hand of an order is not to be relied on."""
        self._known.pop(order_id, None)

    def newest(self, before: Progress) -> Progress:
        """The newest progress of an order of which `before` was seen."""
        newest = self._newest.get(before.order_id) or self._known.get(before.order_id, ("", None))[1]
        return before if newest is None or newest.version < before.version else newest

    def told(self, order_id: str) -> Progress | None:
        """What has been told of an order that rides, or is being written."""
        return self._told.get(order_id)

    def ride(self, change: Change, ripe_at: float, due_at: float) -> Rider:
        """Have a change ride; with what rides of its order already."""
        rider = self._rider(change.order_id, ripe_at, due_at)
        rider.change = rider.change.then(change) if rider.change else change
        self._newest[change.order_id] = self._told[change.order_id] = rider.change.after
        if rider.change.after.is_final:  # nobody need take it up
            rider.end = None
        return rider

    def ride_end(self, end: End, ripe_at: float, due_at: float) -> None:
        """Have the end of a pass ride, unless it is known here that the order needs none."""
        newest = self._newest.get(end.order_id)
        if newest is None or not newest.is_final:
            self._rider(end.order_id, ripe_at, due_at).end = end

    def hurry(self, change: Change) -> Rider:
        """A change that does not wait, with what rides of its order, which rides no more."""
        order_id = change.order_id
        hurried = self._riders.pop(order_id, Rider(0.0, 0.0))
        hurried.change = hurried.change.then(change) if hurried.change else change
        hurried.is_urgent = True
        self._urgent[order_id] += 1
        self._newest[order_id] = hurried.change.after
        return hurried

    def take(self, now: float, limit: int) -> list[Rider]:
        """Up to `limit` riders that are ripe, the oldest first; they ride no more."""
        ripe: list[str] = []
        for order_id, rider in self._riders.items():
            if rider.ripe_at > now or len(ripe) == limit:
                break
            ripe.append(order_id)
        self._in_hand += len(ripe)
        return [self._riders.pop(order_id) for order_id in ripe]

    def written(self, rider: Rider, progress: Progress | None) -> None:
        """A rider's change has been written, and this is what the order came to; None: it could not be."""
        if rider.is_urgent:
            self._end_urgency(rider)
        else:
            self._in_hand -= 1
        if rider.change is None:
            return
        change, order_id = rider.change, rider.change.order_id
        if self._newest.get(order_id) is change.after:
            del self._newest[order_id]
        told = self._told.get(order_id)
        if told is not None and told.version <= change.after.version:
            del self._told[order_id]
        if progress is None:
            self.forget(order_id)
            return
        self._note_end(progress)
        self.learn(progress)

    def learn(self, progress: Progress) -> None:
        """An order has come so far: what is at hand of it follows."""
        if progress.order_id in self._known:
            self.know(self._known[progress.order_id][0], progress)

    def _end_urgency(self, rider: Rider) -> None:
        assert rider.change is not None
        self._urgent[rider.change.order_id] -= 1
        if not self._urgent[rider.change.order_id]:
            del self._urgent[rider.change.order_id]

    def _note_end(self, progress: Progress) -> None:
        if progress.is_final:
            self._finished[progress.order_id] = None
            if len(self._finished) > MAX_FINISHED:
                del self._finished[next(iter(self._finished))]

    def _rider(self, order_id: str, ripe_at: float, due_at: float) -> Rider:
        return self._riders.get(order_id) or self._riders.setdefault(order_id, Rider(ripe_at, due_at))
