"""The durable journal: every accepted order, every outcome, on disk before anybody hears of it.

Concurrent accepts share one commit, and so do concurrent outcomes. Whoever watches an order is told of each
change after its commit.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial, reduce
from typing import TypeVar

from sqlalchemy import Connection

from checkout import leases, orders, store
from checkout.leases import End
from checkout.orders import Emission, Order, OrderStatus, Outcome, Progress
from checkout.store import Accepted, Change, Placement, StaleProgressError
from checkout.watching import Watchers
from servicekit.batching import Batcher, Observe, ignore
from servicekit.crashpoints import reach
from servicekit.db import Database

T = TypeVar("T")
R = TypeVar("R")

MAX_GROUP = 128
MAX_QUEUE = 4_000
MAX_AT_ONCE = 1_000


class UnknownOrderError(Exception):
    """No such order."""


class Journal:
    """Async access to the store. Every writing method returns after its commit.

    Raises StorageUnavailableError where the database is, and QueueFullError under too much work.
    """

    def __init__(
        self,
        database: Database,
        watchers: Watchers,
        observer: Callable[[str], Observe] = lambda name: ignore,
    ) -> None:
        self._database = database
        self._watchers = watchers

        def batcher(
            kind: str, handle: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]]
        ) -> Batcher[T, R]:
            return Batcher(
                handle, max_items=MAX_GROUP, max_queue=MAX_QUEUE, observe=observer(f"journal-{kind}")
            )

        self._accepts: Batcher[Placement, Accepted] = batcher(
            "accept", lambda placements: database.batch(store.accept, placements)
        )
        self._changes: Batcher[Change, Progress] = batcher("outcome", self._apply)
        self._ends: Batcher[End, None] = batcher("end", lambda ends: database.batch(leases.end_passes, ends))

    async def aclose(self) -> None:
        """Write what has been submitted; take no more."""
        for group in (self._accepts, self._changes, self._ends):
            await group.aclose()

    async def accept(self, placement: Placement) -> Accepted:
        """Make one order durable, or find the order that its idempotency key stands for."""
        accepted = await self._accepts.submit(placement)
        reach("checkout.after-accept")
        return accepted

    async def by_key(self, caller: str, key: str) -> Accepted | None:
        """The order that a caller's idempotency key stands for, if there is one."""
        found = await self._database.read(lambda c: store.by_key(c, [(caller, key)]))
        return found.get((caller, key))

    async def record(self, before: Progress, outcomes: Sequence[Outcome]) -> Progress:
        """Make outcomes of one order durable; its progress then. `before` is what was last seen of it."""
        return await self._changes.submit(Change(before, lambda seen: reduce(orders.advance, outcomes, seen)))

    async def await_participants(self, before: Progress, names: Sequence[str]) -> Progress:
        """An order that awaits nobody yet awaits these from now on; its progress then."""
        now = datetime.now(UTC)
        return await self._changes.submit(Change(before, lambda seen: orders.awaiting(seen, names, now)))

    async def close(self, before: Progress) -> Progress:
        """Nobody's outcome is heard any more: the order is at its end; its progress then."""
        now = datetime.now(UTC)
        return await self._changes.submit(Change(before, lambda seen: orders.closed(seen, now)))

    async def release(self, before: Progress, names: Iterable[str]) -> Progress:
        """Skip the pending steps of participants that have retired; the order's progress then."""
        now, gone = datetime.now(UTC), tuple(names)
        return await self._changes.submit(Change(before, lambda seen: orders.released(seen, gone, now)))

    async def _apply(self, changes: Sequence[Change]) -> Sequence[Progress | Exception]:
        # Told from here, not by the caller: a pass whose time runs out during the commit tells nobody.
        results = list(await self._database.batch(store.change, changes))
        stale = [place for place, result in enumerate(results) if isinstance(result, StaleProgressError)]
        if stale:
            again = await self._database.batch(store.change_anyway, [changes[place] for place in stale])
            for place, result in zip(stale, again, strict=True):
                results[place] = result
        reach("checkout.after-outcome")
        for result in results:
            if isinstance(result, Progress):
                self._watchers.tell(result)
        return results

    async def hear(self, outcomes: Sequence[Outcome]) -> list[Progress | Exception]:
        """Make a batch of outcomes durable in one transaction: the progress of each outcome's order then.

        UnknownOrderError stands in the place of an outcome that belongs to no choreographed order; one that
        cannot be written has its exception, and costs the others nothing.
        """
        heard = await self._database.batch(store.hear, outcomes)
        reach("checkout.after-heard")
        results = [
            UnknownOrderError(outcome.order_id) if result is None else result
            for outcome, result in zip(outcomes, heard, strict=True)
        ]
        for result in results:
            if isinstance(result, Progress):
                self._watchers.tell(result)
        return results

    async def retire(self, name: str) -> int:
        """Skip a retired participant's pending steps in all unfinished choreographed orders; in how many.

        In bounded batches; to be repeated if it breaks off.
        """
        total, now = 0, datetime.now(UTC)
        after: str | None = ""
        while after is not None:
            batch = partial(store.release, name=name, at=now, after=after, limit=MAX_AT_ONCE)
            changed, after = await self._database.write(batch)
            total += len(changed)
            for progress in changed:
                self._watchers.tell(progress)
        return total

    async def end_pass(
        self, order_id: str, delay_s: float, emission: Emission | None = None, retries: int = 0
    ) -> None:
        """Let go of an order: if it is unfinished, it is due again after `delay_s`.

        `emission` says where its event is. Nothing happens if more than `retries` have been asked for.
        """
        await self._ends.submit(End(order_id, delay_s, emission, retries))

    async def claim(self, limits: Mapping[str, int], lease_s: float) -> list[tuple[Order, Progress]]:
        """Take due orders for `lease_s`; `limits` says how many at most, by style."""
        return await self._database.write(lambda c: leases.claim(c, limits, lease_s))

    async def claim_next(self, lease_s: float, style: str) -> list[tuple[Order, Progress]]:
        """Take the style's one order that falls due next, before its time."""
        return await self._database.write(lambda c: leases.claim_next(c, lease_s, style))

    async def make_all_due(
        self, style: str | None = None, *, but_stamp: str = "", leased_too: bool = False
    ) -> int:
        """Make every unfinished order (of one style) that waits due, as if new; how many those were.

        In bounded batches. Not those whose event was emitted under `but_stamp`.

        `leased_too`: those as well over which a pass is running, as far as the journal knows.
        """

        def batch(connection: Connection) -> int:
            return leases.make_due(
                connection, MAX_AT_ONCE, style=style, but_stamp=but_stamp, leased_too=leased_too
            )

        total = count = await self._database.write(batch)
        # A batch that is not full was the last: what has come to wait since then is not meant.
        while count == MAX_AT_ONCE:
            count = await self._database.write(batch)
            total += count
        return total

    async def get(self, order_id: str) -> tuple[Order, Progress]:
        """One order. Raises UnknownOrderError."""
        found = await self._database.read(lambda c: store.load(c, [order_id]))
        if not found:
            raise UnknownOrderError(order_id)
        return found[0]

    async def page(
        self, status: OrderStatus | None, older_than_s: float, after: str, limit: int
    ) -> list[tuple[Order, Progress]]:
        """Up to `limit` orders after an id, oldest first, accepted at least `older_than_s` ago."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s) if older_than_s else None
        return await self._database.read(
            lambda c: store.page(c, status=status, accepted_before=before, after=after, limit=limit)
        )

    async def refresh(self, seen: Mapping[str, int]) -> None:
        """Tell the watchers of orders that another process has changed: `seen` are versions by order id."""

        def newer(connection: Connection) -> list[Progress]:
            versions = store.versions_of(connection, seen)
            changed = [order_id for order_id, version in versions.items() if version > seen[order_id]]
            return list(store.progress_of(connection, changed).values()) if changed else []

        for progress in await self._database.read(newer):
            self._watchers.tell(progress)

    async def census(self) -> tuple[dict[str, int], datetime | None]:
        """Orders by status, and when the oldest unfinished one was accepted."""
        return await self._database.read(store.census)

    async def retry(self, order_id: str) -> tuple[Order, Progress]:
        """Make the failed steps pending, and the order due. Raises UnknownOrderError, WrongStatusError."""
        return await self._change(order_id, orders.retried)

    async def abandon(self, order_id: str) -> tuple[Order, Progress]:
        """Give up what has not come about. Raises UnknownOrderError, WrongStatusError."""
        return await self._change(order_id, orders.abandoned)

    async def _change(
        self, order_id: str, rule: Callable[[Progress, datetime], Progress]
    ) -> tuple[Order, Progress]:
        def work(connection: Connection) -> None:
            before = store.progress_of(connection, [order_id], lock=True)
            if order_id not in before:
                raise UnknownOrderError(order_id)
            after = rule(before[order_id], datetime.now(UTC))
            store.replace_progress(connection, before[order_id], after)
            leases.make_due_again(connection, after)

        await self._database.write(work)
        order, progress = await self.get(order_id)
        self._watchers.tell(progress)
        return order, progress
