"""The durable journal: every accepted order, every outcome, on disk before anybody hears of it.

Concurrent accepts share one commit, and so do concurrent outcomes. Whoever watches an order is told of each
change after its commit.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from checkout import orders, store
from checkout.orders import Order, OrderStatus, Outcome, Progress
from checkout.store import Accepted, Change, Placement, StaleProgressError
from checkout.watching import Watchers
from servicekit.batching import Batcher
from servicekit.crashpoints import reach
from servicekit.db import Database

log = logging.getLogger("checkout.journal")

MAX_GROUP = 128
MAX_QUEUE = 4_000
MAX_DUE_AT_ONCE = 1_000


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
        observe: Callable[[str, int], None] = lambda kind, n: None,
    ) -> None:
        self._database = database
        self._watchers = watchers

        def batcher(kind: str, perform: Callable[..., Sequence[object]]) -> Batcher[object, object]:
            return Batcher(
                lambda items: database.batch(perform, items),
                max_items=MAX_GROUP,
                max_queue=MAX_QUEUE,
                observe=lambda size: observe(kind, size),
            )

        self._accepts = batcher("accept", store.accept)
        self._changes = batcher("outcome", store.change)
        self._ends = batcher("end", store.end_passes)

    async def aclose(self) -> None:
        """Write what has been submitted; take no more."""
        for group in (self._accepts, self._changes, self._ends):
            await group.aclose()

    async def accept(self, placement: Placement) -> Accepted:
        """Make one order durable, or find the order that its idempotency key stands for."""
        accepted = await self._accepts.submit(placement)
        assert isinstance(accepted, Accepted)
        reach("checkout.after-accept")
        return accepted

    async def by_key(self, caller: str, key: str) -> Accepted | None:
        """The order that a caller's idempotency key stands for, if there is one."""
        found = await self._database.read(lambda c: store.by_key(c, [(caller, key)]))
        return found.get((caller, key))

    async def record(self, before: Progress, outcomes: Sequence[Outcome]) -> Progress:
        """Make outcomes of one order durable; its progress then. `before` is what was last seen of it."""
        change = Change(before, tuple(outcomes))
        try:
            progress = await self._changes.submit(change)
        except StaleProgressError:
            [progress] = await self._database.write(lambda c: store.change_anyway(c, [change]))
        assert isinstance(progress, Progress)
        reach("checkout.after-outcome")
        self._watchers.tell(progress)
        return progress

    async def end_pass(self, order_id: str, delay_s: float) -> None:
        """Let go of an order: if it is unfinished, it is due again after `delay_s`."""
        await self._ends.submit((order_id, delay_s))

    async def claim(self, limit: int, lease_s: float) -> list[tuple[Order, Progress]]:
        """Take up to `limit` due orders for `lease_s`."""
        return await self._database.write(lambda c: store.claim(c, limit, lease_s))

    async def claim_next(self, lease_s: float) -> list[tuple[Order, Progress]]:
        """Take the one order that falls due next, before its time."""
        return await self._database.write(lambda c: store.claim_next(c, lease_s))

    async def make_all_due(self, *, first_passes_too: bool) -> int:
        """Every unfinished order is due now; how many were not yet. In bounded batches."""

        def batch(connection: Connection) -> int:
            return store.make_due(connection, MAX_DUE_AT_ONCE, first_passes_too=first_passes_too)

        total = 0
        while count := await self._database.write(batch):
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
            store.make_due(connection, 1, order_id=order_id)

        await self._database.write(work)
        order, progress = await self.get(order_id)
        self._watchers.tell(progress)
        return order, replace(progress, passes=0)
