"""How the conductor tells one service something: a call bounded in time, size, attempts and number.

What a reply means is decided in `checkout.replies`; what becomes of the step, by the conductor.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import orjson
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_base

from checkout.metrics import CallMetrics
from checkout.orders import Outcome, StepStatus
from checkout.replies import (
    CallError,
    MisroutedError,
    NoBatchRouteError,
    NoSlotError,
    RefusedError,
    Reply,
    TroubleError,
    judge,
    judge_batch,
    judge_item,
)
from checkout.settings import Settings
from checkout.transport import UNREACHABLE, Exchanger
from servicekit.batching import Batcher, Observe, QueueFullError, ignore

log = logging.getLogger("checkout.clients")

MAX_REPLY_BYTES = 65_536
# What a request may hold for several orders; a service takes, and gives, up to a mebibyte.
BATCH = "/batch"
MAX_BATCH = 100
MAX_BATCH_BYTES = 512 * 1024
MAX_BATCH_REPLY_BYTES = 1024 * 1024
MAX_QUEUE = 2_000
# A service without such a route is asked for it again after a while: it may have been deployed anew.
ASK_AGAIN_S = 60.0
LEAST_S = 0.05
MAX_BACKOFF_S = 2.0
# A service that nobody listens for is failing at once, any other after so many failures in a row, and so long
# without an answer.
FAILING_AFTER = 5
# What the last answer counts for, of how long a service takes.
LATENCY_SHARE = 0.2
FAILING_AFTER_S = 3.0


@dataclass(frozen=True)
class Told:
    """What came of telling a service: its reply, or the error of the last of `attempts` tries."""

    attempts: int
    reply: Reply | None = None
    error: CallError | None = None

    def outcome(self, order_id: str, step: str) -> Outcome:
        """What that makes of the step: done, refused, or still pending."""
        at = datetime.now(UTC)
        if self.reply is not None:
            result = self.reply.model_dump(mode="json")
            return Outcome(order_id, step, StepStatus.SUCCEEDED, at, self.attempts, result=result)
        assert self.error is not None
        slug = self.error.slug
        if isinstance(self.error, RefusedError):
            return Outcome(order_id, step, StepStatus.FAILED, at, self.attempts, reason=slug)
        return Outcome(order_id, step, StepStatus.PENDING, at, self.attempts, last_error=slug)


class RetryBudget:
    """Retries may be at most a share of the first tries, and a few a second beside it (no storm)."""

    def __init__(self, ratio: float, floor_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._floor_per_s = floor_per_s
        self._clock = clock
        self._limit = max(10.0, floor_per_s)
        self._tokens = self._limit
        self._filled_at = clock()

    def earn(self) -> None:
        """A first try was made."""
        self._tokens = min(self._limit, self._tokens + self._ratio)

    def spend(self) -> bool:
        """Whether one more retry is within the budget; it is spent then."""
        now = self._clock()
        self._tokens = min(self._limit, self._tokens + (now - self._filled_at) * self._floor_per_s)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ServiceClient:
    """Tells one service things: bounded in attempts, in time, in flight, and by a retry budget.

    Commands that come at the same time share a request, where the service takes such. One that was in a
    request that failed as a whole goes alone the next time.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        token: str,
        transport: httpx.AsyncBaseTransport,
        settings: Settings,
        metrics: CallMetrics,
        *,
        observe: Observe = ignore,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._exchanger = Exchanger(base_url, token, transport)
        self._settings = settings
        self._metrics = metrics
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._clock = clock
        self._sleep = sleep
        self._budget = RetryBudget(settings.retry_budget_ratio, settings.retry_budget_floor_per_s, clock)
        # Told when the service answers again after it did not for a while.
        self.on_recovery: Callable[[], None] = lambda: None
        self.failing = False
        self._failures = 0
        self._answered_at = clock()
        self._in_flight = metrics.in_flight.labels(name)
        self._seconds = metrics.seconds.labels(name)
        self._succeeded = metrics.attempts.labels(name, "succeeded")
        self._observe = observe
        self._latency_s = 0.0
        self._batches: dict[str, Batcher[_Message, Reply]] = {}  # by path
        self._no_batches_until: dict[str, float] = {}

    async def tell(
        self,
        path: str,
        command: Mapping[str, Any],
        reply: type[Reply],
        on_trouble: Callable[[str], Awaitable[None]],
    ) -> Told:
        """Send one command until it is answered or the bounds are reached; never raises for a bad answer.

        `on_trouble` hears the slug of the first failed try, before any retry.
        """
        deadline = self._clock() + self._settings.pass_timeout_s * 0.9
        message = _Message(path, command["order_id"], orjson.dumps(command), reply, deadline)
        self._budget.earn()
        try:
            return await self._tell(message, on_trouble)
        except Exception:  # a fault of ours in one step must not hold up the others
            log.exception("the conductor failed to call", extra={"to": self.name})
            return Told(1, error=TroubleError("conductor-error"))

    @property
    def wait_s(self) -> float:
        """For how many seconds, about, one more command would wait for its turn at the service."""
        commands = sum(len(batches) + batches.in_hand for batches in self._batches.values())
        most = self._settings.max_in_flight
        # Little's law: with so many in hand, so many are answered in the time that one takes.
        return commands * self._latency_s / most if commands > most else 0.0

    async def _tell(self, message: "_Message", on_trouble: Callable[[str], Awaitable[None]]) -> Told:
        try:
            return Told(1, await self._attempt(message))
        except TroubleError as error:
            await on_trouble(error.slug)
            return await self._retry(error, message)
        except CallError as error:
            return Told(1, error=error)

    async def _retry(self, first: TroubleError, message: "_Message") -> Told:
        """Go on after a first try that met with trouble: to tenacity, that try is the first attempt."""
        attempts = 0

        async def once() -> Reply:
            nonlocal attempts
            attempts += 1
            if attempts == 1:
                raise first
            return await self._attempt(message)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TroubleError),
            stop=stop_after_attempt(self._settings.call_max_attempts)
            | _StopBefore(message.deadline, self._budget, self._clock),
            wait=self._pause_s,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            answer: Reply = await retrying(once)
        except CallError as error:
            return Told(attempts, error=error)
        return Told(attempts, answer)

    def _pause_s(self, state: RetryCallState) -> float:
        """Full jitter under an exponential ceiling, or what the service asked for."""
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, CallError)
        if error.retry_after_s is not None:
            return error.retry_after_s
        ceiling_s = min(self._settings.call_backoff_s * 2.0**state.attempt_number, MAX_BACKOFF_S)
        return random.uniform(0, ceiling_s)  # noqa: S311 - jitter, no secret

    async def _attempt(self, message: "_Message") -> Reply:
        """Tell it once. Raises CallError."""
        if message.alone or not self._takes_batches(message.path):
            return await self._tell_alone(message)
        try:
            # Bounded by the calls before it: whoever is late is not told any more.
            return await self._batches_to(message.path).submit(message)
        except QueueFullError:
            raise self._no_slot() from None

    def _takes_batches(self, path: str) -> bool:
        return self._settings.batching == "on" and self._clock() >= self._no_batches_until.get(path, 0.0)

    def _batches_to(self, path: str) -> "Batcher[_Message, Reply]":
        if path not in self._batches:
            self._batches[path] = Batcher(
                partial(self._tell_together, path),
                max_items=MAX_BATCH,
                max_queue=MAX_QUEUE,
                max_weight=MAX_BATCH_BYTES,
                weigh=lambda message: len(message.content),
                in_flight=self._settings.batches_in_flight,
                max_in_hand=self._settings.max_in_flight,
                young_s=self._settings.batch_young_s,
                observe=self._observe,
            )
        return self._batches[path]

    async def _tell_alone(self, message: "_Message") -> Reply:
        await self._take_slot()
        started = time.perf_counter()
        outcome = "cancelled"
        self._in_flight.inc()
        try:
            timeout_s = min(self._settings.call_timeout_s, max(LEAST_S, message.deadline - self._clock()))
            status, headers, body = await self._exchanger.post(
                message.path, message.content, timeout_s, MAX_REPLY_BYTES
            )
            result = _checked(message, judge(self.name, status, headers, body, message.reply))
            outcome = "succeeded"
            self._note_latency(time.perf_counter() - started)
            self._answers(well=True)
            return result
        except CallError as error:
            outcome = self._failed(error, message.path)
            self._answers(well=isinstance(error, RefusedError), gone=error.slug == UNREACHABLE)
            raise
        finally:
            self._slots.release()
            self._in_flight.dec()
            self._count(outcome)
            self._seconds.observe(time.perf_counter() - started)

    async def _tell_together(self, path: str, messages: "Sequence[_Message]") -> "list[Reply | Exception]":
        """Tell what waits in one request; one reply or error each. Whoever has no time left is not told."""
        now = self._clock()
        live = [message for message in messages if message.deadline > now]
        replies = iter(await self._sent(path, live))
        return [next(replies) if message.deadline > now else TroubleError("timeout") for message in messages]

    async def _sent(self, path: str, messages: "Sequence[_Message]") -> "list[Reply | Exception]":
        if len(messages) > 1:
            try:
                return await self._sent_together(path, messages)
            except NoBatchRouteError:
                self._no_batches_until[path] = self._clock() + ASK_AGAIN_S
        if len(messages) == 1:
            return [await self._caught(messages[0])]
        return await asyncio.gather(*(self._caught(message) for message in messages))

    async def _caught(self, message: "_Message") -> Reply | Exception:
        try:
            return await self._tell_alone(message)
        except Exception as error:  # it is this one's, and costs the others nothing
            return error

    async def _sent_together(self, path: str, messages: "Sequence[_Message]") -> "list[Reply | Exception]":
        content = b'{"items":[' + b",".join(message.content for message in messages) + b"]}"
        started = time.perf_counter()
        self._in_flight.inc()
        try:
            status, headers, body = await self._exchanger.post(
                path + BATCH,
                content,
                self._settings.call_timeout_s,
                min(MAX_BATCH_REPLY_BYTES, len(messages) * MAX_REPLY_BYTES),
            )
            items = judge_batch(status, headers, body, len(messages))
        except NoBatchRouteError:
            raise
        except CallError as error:
            self._answers(well=False, gone=error.slug == UNREACHABLE)
            for message in messages:
                message.alone = True
                self._count(self._failed(error, path))
            return [error] * len(messages)
        finally:
            self._in_flight.dec()
            self._seconds.observe(time.perf_counter() - started)
        results = [self._judged(message, item) for message, item in zip(messages, items, strict=True)]
        self._note_latency(time.perf_counter() - started)
        self._answers(well=any(isinstance(result, Reply | RefusedError) for result in results))
        self._succeeded.inc(sum(isinstance(result, Reply) for result in results))
        return results

    def _judged(self, message: "_Message", item: Any) -> Reply | Exception:
        try:
            return _checked(message, judge_item(self.name, item, message.reply))
        except CallError as error:
            self._count(self._failed(error, message.path))
            return error

    def _failed(self, error: CallError, path: str) -> str:
        """Note a call that did not succeed; the label that it counts under."""
        if isinstance(error, MisroutedError):
            self._metrics.misrouted.labels(self.name).inc()
            log.warning("misrouted call", extra={"to": self.name, "path": path, "error": error.slug})
        # A refusal's slug is the service's own: it must not become a label.
        return "refused" if isinstance(error, RefusedError) else error.slug

    def _count(self, outcome: str) -> None:
        (
            self._succeeded if outcome == "succeeded" else self._metrics.attempts.labels(self.name, outcome)
        ).inc()

    def _note_latency(self, seconds: float) -> None:
        self._latency_s += LATENCY_SHARE * (seconds - self._latency_s)

    def _answers(self, *, well: bool, gone: bool = False) -> None:
        # One order that always fails beside others that succeed is no failing service.
        now = self._clock()
        if not well:
            self._failures += 1
            long_ago = now - self._answered_at >= FAILING_AFTER_S
            self.failing = self.failing or gone or (long_ago and self._failures >= FAILING_AFTER)
            return
        recovered, self.failing = self.failing, False
        self._failures, self._answered_at = 0, now
        if recovered:
            self.on_recovery()

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._settings.slot_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            raise self._no_slot() from None

    def _no_slot(self) -> NoSlotError:
        self._count("too-many-in-flight")
        return NoSlotError("too-many-in-flight")


@dataclass(eq=False)
class _Message:
    """One command on its way; `deadline` is by the monotonic clock, in seconds. `alone`: in no batch."""

    path: str
    order_id: str
    content: bytes
    reply: type[Reply]
    deadline: float
    alone: bool = False


class _StopBefore(stop_base):
    """No retry that would start after the deadline, or for which the budget has nothing left."""

    def __init__(self, deadline: float, budget: RetryBudget, clock: Callable[[], float]) -> None:
        self._deadline = deadline
        self._budget = budget
        self._clock = clock

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._clock() + retry_state.upcoming_sleep >= self._deadline or not self._budget.spend()


def _checked(message: _Message, reply: Reply) -> Reply:
    if reply.order_id != message.order_id:
        raise TroubleError("reply-for-another-order")
    return reply
