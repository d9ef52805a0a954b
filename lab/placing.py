"""Placing orders as a careful client does: a key for each, with which it is retried until it is answered.

An id is on disk before it counts as accepted, so that the audit holds the system to what a client was told.
With a rate the loop is open: orders leave at their intended times, whatever became of those before. It
refuses to wait without end: for one order's answer, for a slot, or for an order to finish.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx

from lab.client import Answer, Call, NoAnswerError, Patience, RefusedError, each, expect, send
from lab.errors import LabError
from lab.ledger import IN_PROGRESS, STATUSES
from lab.outcome import Outcome
from lab.synced import SyncedLines

ANSWER_S = 120.0
LOOK_S = 5.0
MOST_IN_FLIGHT = 200
CLOSED_LOOP_CLIENTS = 16
LOOKERS = 16
FIRST_LOOK_S = 0.1
LONGEST_LOOK_S = 1.0
MOST_ERRORS = 20


class Listener(Protocol):
    """Who is told of progress; all calls come from the event loop."""

    def accepted(self, order: Mapping[str, Any]) -> None:
        """An order's id is on disk; `order` is its representation."""

    def changed(self, order: Mapping[str, Any]) -> None:
        """A step has finished, or the order has."""

    def not_accepted(self, error: LabError) -> None:
        """An order was refused, or nobody answered for as long as patience lasted."""


class Silent:
    """A listener for orders whose outcome is all that is wanted."""

    def accepted(self, order: Mapping[str, Any]) -> None:
        """Nobody is told."""

    def changed(self, order: Mapping[str, Any]) -> None:
        """Nobody is told."""

    def not_accepted(self, error: LabError) -> None:
        """Nobody is told: it is in the outcome."""


@dataclass(frozen=True)
class Plan:
    """What to place: `body(number)` for each of `count` orders; `rate` in orders a second, None: as they go.

    The styles take turns; without any the service's setting decides. `follow_s` is how long to go on looking
    after the last one was accepted; `detached` asks checkout to answer as soon as an order is durable, so
    that its steps can be seen finishing.
    """

    url: str
    body: Callable[[int], bytes]
    count: int = 1
    rate: float | None = None
    styles: Sequence[str] = ()
    follow_s: float = 30.0
    detached: bool = False
    patience: Patience = field(default_factory=lambda: Patience(ANSWER_S))


async def place_orders(
    client: httpx.AsyncClient, plan: Plan, accepted: SyncedLines, listener: Listener
) -> Outcome:
    """Place all orders and follow them until they are final, or the wait is over.

    Raises `LabError` only where the accepted ids cannot be written; all other trouble is in the outcome.
    """
    placing = _Placing(client, plan, accepted, listener)
    clock = plan.patience.clock
    started = clock()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(placing.follow())
            await placing.place_all()
    except ExceptionGroup as group:
        raise _first(group) from group
    placing.outcome.seconds = clock() - started
    return placing.outcome


class _Placing:
    """One run of a plan."""

    def __init__(
        self, client: httpx.AsyncClient, plan: Plan, accepted: SyncedLines, listener: Listener
    ) -> None:
        self.outcome = Outcome(plan.count)
        self._client = client
        self._plan = plan
        self._accepted = accepted
        self._listener = listener
        self._all_placed = False
        self._news = asyncio.Event()
        self._seen: dict[str, list[str]] = {}

    async def place_all(self) -> None:
        """Place the orders: at their intended times, or a bounded number at once."""
        if self._plan.rate is None:
            await each(range(self._plan.count), self._place, min(CLOSED_LOOP_CLIENTS, self._plan.count))
        else:
            await self._place_in_time(self._plan.rate)
        self._all_placed = True
        self._news.set()

    async def follow(self) -> None:
        """Look at the unfinished orders in passes, until all are placed and final, or the wait is over."""
        clock, sleep = self._plan.patience.clock, self._plan.patience.sleep
        pause_s = FIRST_LOOK_S
        ends: float | None = None
        while self.outcome.unfinished or not self._all_placed:
            if self._all_placed:
                ends = clock() + self._plan.follow_s if ends is None else ends
                if clock() >= ends:
                    return
            if not self.outcome.unfinished:
                await self._news.wait()  # bounded, as placing is: by the patience with each order
                self._news.clear()
                continue
            changed = await self._look()
            pause_s = FIRST_LOOK_S if changed else min(LONGEST_LOOK_S, pause_s * 1.5)
            await sleep(pause_s)

    async def _place_in_time(self, rate: float) -> None:
        clock, sleep = self._plan.patience.clock, self._plan.patience.sleep
        started = clock()
        slots = asyncio.Semaphore(MOST_IN_FLIGHT)

        async def place_in_slot(number: int, intended: float) -> None:
            try:
                await self._place(number, intended)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as tasks:
            for number in range(self._plan.count):
                intended = started + number / rate
                if intended > clock():
                    await sleep(intended - clock())
                await slots.acquire()
                self.outcome.worst_lag_s = max(self.outcome.worst_lag_s, clock() - intended)
                tasks.create_task(place_in_slot(number, intended))

    async def _place(self, number: int, intended: float | None = None) -> None:
        """Place one order; whether it is accepted, refused or unanswered is in the outcome."""
        clock = self._plan.patience.clock
        due = clock() if intended is None else intended
        try:
            answer = await send(self._client, self._call(number), self._plan.patience)
            order = _order_of(answer)
        except (RefusedError, NoAnswerError) as error:
            self._count_not_accepted(error)
            return
        ack_s = clock() - due
        await self._accepted.add(order["order_id"])
        self.outcome.retries += answer.tries - 1
        self.outcome.replayed += answer.headers.get("Idempotency-Replayed") == "true"
        self.outcome.accept(order, ack_s)
        self._news.set()
        self._listener.accepted(order)

    def _call(self, number: int) -> Call:
        key = str(uuid.uuid4())

        def headers(attempt: int) -> dict[str, str]:
            # Whoever asks again has waited already: what counts now is whether the order was accepted.
            prefer = {"Prefer": "respond-async"} if self._plan.detached or attempt > 1 else {}
            return {"Idempotency-Key": f'"{key}"', **prefer}

        styles = self._plan.styles
        params = {"style": styles[number % len(styles)]} if styles else {}
        return Call("POST", f"{self._plan.url}/checkouts", headers, params, self._plan.body(number))

    def _count_not_accepted(self, error: LabError) -> None:
        if isinstance(error, RefusedError):
            self.outcome.refused += 1
        else:
            self.outcome.unanswered += 1
        if len(self.outcome.errors) < MOST_ERRORS:
            self.outcome.errors.append(str(error))
        self._listener.not_accepted(error)

    async def _look(self) -> bool:
        """One look at every unfinished order; whether anything has changed."""
        changed = False
        patience = replace(self._plan.patience, total_s=LOOK_S, try_s=LOOK_S)

        async def look(order_id: str) -> None:
            nonlocal changed
            call = Call("GET", f"{self._plan.url}/checkouts/{order_id}")
            try:
                order = _order_of(await send(self._client, call, patience))
            except (RefusedError, NoAnswerError):
                return  # the next pass asks again, and the audit has the last word
            states = [step["status"] for step in order["steps"].values()]
            self.outcome.update(order)
            if order["status"] != IN_PROGRESS:
                self._seen.pop(order_id, None)
            elif self._seen.get(order_id) == states:
                return
            else:
                self._seen[order_id] = states
            changed = True
            self._listener.changed(order)

        await each(sorted(self.outcome.unfinished), look, LOOKERS)
        return changed


def _order_of(answer: Answer) -> dict[str, Any]:
    """The representation in an answer; raise `RefusedError`, or `NoAnswerError` where it is none."""
    order = expect(answer)
    if (
        not isinstance(order.get("order_id"), str)
        or order.get("status") not in STATUSES
        or not isinstance(order.get("style"), str)
        or not isinstance(order.get("steps"), dict)
    ):
        raise NoAnswerError(f"checkout answered HTTP {answer.status} with what is no order")
    return order


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group of tasks, which is what ended the others."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
