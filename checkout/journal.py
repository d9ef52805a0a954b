"""The durable journal: every accepted order on disk before anybody hears of it, and every outcome in time.

All that is to be written at the same time shares one commit. Whoever watches an order is told of each change:
of a failure after its commit, of any other at once, for it may wait a moment for a commit that goes anyway.
Should it be lost, the order is unfinished, and comes to the same again.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial, reduce

from sqlalchemy import Connection

from checkout import leases, orders, store
from checkout.group_commit import GroupCommit
from checkout.leases import End
from checkout.orders import CHOREOGRAPHY, Emission, Order, OrderStatus, Outcome, Progress, StepStatus
from checkout.store import Accepted, Change, Placement
from checkout.watching import Watchers
from servicekit.batching import Observe, ignore
from servicekit.crashpoints import reach
from servicekit.db import Database

MAX_AT_ONCE = 1_000
# Said again, the same comes of it.
DONE = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED})


class UnknownOrderError(Exception):
    """No such order."""


class Journal:
    """Async access to the store.

    An outcome that needs no disk may wait up to `delay_s` seconds for somebody else's commit; with 0 it waits
    for its own before anybody hears of it.
    Raises StorageUnavailableError where the database is, and QueueFullError under too much work.
    """

    def __init__(
        self, database: Database, watchers: Watchers, *, delay_s: float = 0.0, observe: Observe = ignore
    ) -> None:
        self._database = database
        self._watchers = watchers
        self._commits = GroupCommit(database, watchers, delay_s, observe)

    async def aclose(self) -> None:
        """Write what has been submitted; take no more."""
        await self._commits.aclose()

    async def accept(self, placement: Placement) -> Accepted:
        """Make one order durable, or find the order that its idempotency key stands for."""
        accepted = await self._commits.accept(placement)
        reach("checkout.after-accept")
        return accepted

    async def by_key(self, caller: str, key: str) -> Accepted | None:
        """The order that a caller's idempotency key stands for, if there is one."""
        found = await self._database.read(lambda c: store.by_key(c, [(caller, key)]))
        return found.get((caller, key))

    async def record(self, before: Progress, outcomes: Sequence[Outcome]) -> Progress:
        """Take note of outcomes of one order; its progress then. `before` is what was last seen of it.

        It returns at once if all that they say is that something is done, and there is room for it to ride;
        else once it is on disk.
        """
        urgent = not all(outcome.status in DONE for outcome in outcomes)
        return await self._note(before, lambda seen: reduce(orders.advance, outcomes, seen), urgent=urgent)

    async def await_participants(self, before: Progress, names: Sequence[str]) -> Progress:
        """An order that awaits nobody yet awaits these from now on; its progress then."""
        now = datetime.now(UTC)
        return await self._note(before, lambda seen: orders.awaiting(seen, names, now), urgent=True)

    async def close(self, before: Progress) -> Progress:
        """Nobody's outcome is heard any more: the order is at its end; its progress then."""
        now = datetime.now(UTC)
        return await self._note(before, lambda seen: orders.closed(seen, now))

    async def release(self, before: Progress, names: Iterable[str]) -> Progress:
        """Skip the pending steps of participants that have retired; the order's progress then."""
        now, gone = datetime.now(UTC), tuple(names)
        return await self._note(before, lambda seen: orders.released(seen, gone, now), urgent=True)

    async def hear(self, outcomes: Sequence[Outcome]) -> list[Progress | BaseException]:
        """Make outcomes durable: the progress of each outcome's order then.

        UnknownOrderError stands in the place of an outcome that belongs to no choreographed order; one that
        cannot be written has its exception, and costs the others nothing.
        """
        known = self._commits.unwritten.known
        heard_of = {outcome.order_id for outcome in outcomes}
        unread = sorted(each for each in heard_of if known(each, CHOREOGRAPHY) is None)
        read = await self._database.batch(_choreographed, unread) if unread else ()
        found = dict(zip(unread, read, strict=True))
        heard = (self._hear(outcome, found.get(outcome.order_id)) for outcome in outcomes)
        return await asyncio.gather(*heard, return_exceptions=True)

    async def retire(self, name: str) -> int:
        """Skip a retired participant's pending steps in all unfinished choreographed orders; in how many.

        In bounded batches; to be repeated if it breaks off.
        """
        await self._commits.settle()
        total, now = 0, datetime.now(UTC)
        after: str | None = ""
        while after is not None:
            batch = partial(store.release, name=name, at=now, after=after, limit=MAX_AT_ONCE)
            changed, after = await self._database.write(batch)
            total += len(changed)
            for progress in changed:
                self._commits.unwritten.learn(progress)
                self._watchers.tell(progress)
        return total

    async def end_pass(
        self, order_id: str, delay_s: float, emission: Emission | None = None, retries: int = 0
    ) -> None:
        """Let go of an order: if it is unfinished, it is due again after `delay_s`.

        `emission` says where its event is. Nothing happens if more than `retries` have been asked for. Should
        it not be written, the order is due once its lease has run out.
        """
        await self._commits.end(End(order_id, delay_s, emission, retries))

    async def claim(self, limits: Mapping[str, int], lease_s: float) -> list[tuple[Order, Progress]]:
        """Take due orders for `lease_s`; `limits` says how many at most, by style."""
        await self._commits.settle()  # an order whose pass has just ended may be due
        return self._learnt(await self._database.write(lambda c: leases.claim(c, limits, lease_s)))

    async def claim_next(self, lease_s: float, style: str) -> list[tuple[Order, Progress]]:
        """Take the style's one order that falls due next, before its time."""
        return self._learnt(await self._database.write(lambda c: leases.claim_next(c, lease_s, style)))

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

        await self._commits.settle()  # an order whose pass has just ended waits, too
        total = count = await self._database.write(batch)
        # A batch that is not full was the last: what has come to wait since then is not meant.
        while count == MAX_AT_ONCE:
            count = await self._database.write(batch)
            total += count
        return total

    async def get(self, order_id: str) -> tuple[Order, Progress]:
        """One order. Raises UnknownOrderError."""
        told = self._commits.unwritten.told(order_id)
        found = await self._database.read(lambda c: store.load(c, [order_id]))
        if not found:
            raise UnknownOrderError(order_id)
        order, progress = found[0]
        return order, told if told and told.version > progress.version else progress

    async def page(
        self, status: OrderStatus | None, older_than_s: float, after: str, limit: int
    ) -> list[tuple[Order, Progress]]:
        """Up to `limit` orders after an id, oldest first, accepted at least `older_than_s` ago."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s) if older_than_s else None
        await self._commits.settle()
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
            self._commits.unwritten.learn(progress)
            self._watchers.tell(progress)

    async def census(self) -> tuple[dict[str, int], datetime | None]:
        """Orders by status, and when the oldest unfinished one was accepted."""
        await self._commits.settle()
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
        def work(connection: Connection) -> tuple[Order, Progress]:
            before = store.progress_of(connection, [order_id], lock=True)
            if order_id not in before:
                raise UnknownOrderError(order_id)
            after = rule(before[order_id], datetime.now(UTC))
            store.replace_progress(connection, before[order_id], after)
            leases.make_due_again(connection, after)
            return store.load(connection, [order_id])[0]

        await self._commits.settle()
        order, progress = await self._database.write(work)
        self._commits.unwritten.changed(order.style, progress)
        self._watchers.tell(progress)
        return order, progress

    def _learnt(self, claimed: list[tuple[Order, Progress]]) -> list[tuple[Order, Progress]]:
        for order, progress in claimed:
            self._commits.unwritten.know(order.style, progress)
        return claimed

    def _hear(self, outcome: Outcome, read: Progress | Exception | None) -> asyncio.Future[Progress]:
        known = self._commits.unwritten.known(outcome.order_id, CHOREOGRAPHY)
        if known is None and isinstance(read, Progress):
            known = self._commits.unwritten.newest(read)
        if known is None:
            why = read if isinstance(read, Exception) else UnknownOrderError(outcome.order_id)
            unknown: asyncio.Future[Progress] = asyncio.get_running_loop().create_future()
            unknown.set_exception(why)
            return unknown
        change = _change_by(known, lambda seen: orders.advance(seen, outcome))
        if outcome.status not in DONE or not self._commits.may_ride(change):
            return asyncio.ensure_future(self._commits.change(change))
        waiting = self._commits.ride(change).written
        waiting.append(asyncio.get_running_loop().create_future())
        return waiting[-1]

    async def _note(
        self, before: Progress, rule: Callable[[Progress], Progress], *, urgent: bool = False
    ) -> Progress:
        change = _change_by(self._commits.unwritten.newest(before), rule)
        if urgent or not self._commits.may_ride(change):
            return await self._commits.change(change)
        riding = self._commits.ride(change).change
        assert riding is not None
        return riding.after


def _change_by(before: Progress, rule: Callable[[Progress], Progress]) -> Change:
    return Change(before, rule(before), rule)


def _choreographed(connection: Connection, order_ids: Sequence[str]) -> list[Progress | None]:
    found = store.progress_of(connection, order_ids, style=CHOREOGRAPHY)
    return [found.get(order_id) for order_id in order_ids]
