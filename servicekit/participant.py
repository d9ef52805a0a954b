"""Takes part in events: hears them in batches, has their effects made, and tells of each outcome.

Outcome and effect are one transaction; the event is acknowledged only once the broker has stored the outcome,
so an event that is not acknowledged is all the outbox there is. Trouble is tried again for as long as it
takes. An event that is refused again and again is put aside as a dead letter, and no other waits for it.
"""

import asyncio
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Generic

from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from servicekit import outcomes
from servicekit.bus import Bus, BusUnavailableError, Message, Pull
from servicekit.cloudevents import CloudEvent
from servicekit.crashpoints import reach
from servicekit.db import Database, StorageUnavailableError
from servicekit.effects import Done, Handle, Refusal, Result, Skipped, Succeeded, take_effect
from servicekit.heard import Heard, M, read, tidy
from servicekit.hearing import hearing_gauge, listen
from servicekit.in_hand import InHand
from servicekit.outcomes import FAILED, Outcome, Refused
from servicekit.reports import dead_letter, dead_letter_channel, outcome_channel, outcome_reported
from servicekit.settings import ParticipantSettings
from servicekit.simulation import MAX_IN_HAND, SimulatedTroubleError

__all__ = ["Handle", "Participant", "Refusal", "Skipped", "Succeeded"]

log = logging.getLogger(__name__)

TAKES_PART = {"duet.outcome": "true"}
FETCH_WAIT_S = 2.0
DECLARE_INTERVAL_S = 5.0
# A broker that is back is noticed within this time, and one that is away costs little.
UNAVAILABLE_PAUSE_S = 0.5
# Events that must be heard again for want of an answer would only add to what holds the broker up.
TELL_TIMEOUT_S = 5.0
MAX_DOUBLINGS = 20
# An event is kept from being delivered anew this many times within its ack_wait.
EXTENSIONS = 3
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Participant(Generic[M]):
    """One service's part: its durable consumer is named as its broker user is, and so are its outcomes.

    `model` is what it reads of an event's data; `handled` is called after new effects. An event for which
    there is nothing to do `takes_time` of no simulated service: nobody who is told things would be told that.
    """

    def __init__(
        self,
        bus: Bus,
        database: Database,
        settings: ParticipantSettings,
        *,
        stream: str,
        subject: str,
        model: type[M],
        handle: Handle[M],
        registry: CollectorRegistry,
        handled: Callable[[], None] = lambda: None,
        takes_time: Callable[[M], bool] | None = None,
    ) -> None:
        self._bus = bus
        self._database = database
        self._settings = settings
        self._name = settings.nats_user
        self._stream = stream
        self._subject = subject
        self._event: type[CloudEvent[M]] = CloudEvent[model]  # type: ignore[valid-type] # made at run time
        self._take_effect = partial(take_effect, handle=handle, max_refusals=settings.max_refusals)
        self._handled = handled
        self._takes_time = takes_time
        self._metrics = _Metrics(registry)
        self._declare_at = 0.0

    async def run(self) -> None:
        """For ever."""
        pull = self._bus.pull(self._stream, self._name)
        simulated_wait = self._settings.simulated_wait
        if simulated_wait is None:
            await listen(partial(self._hear, pull), UNAVAILABLE_PAUSE_S, self._metrics.hearing)
        else:
            await self._run_simulated(pull, simulated_wait)

    async def _hear(self, pull: Pull) -> None:
        messages = await self._fetch(pull, self._settings.event_batch)
        if messages:
            await self._work_or_rest(messages)

    async def _fetch(self, pull: Pull, max_items: int) -> list[Message]:
        try:
            await self._declare()
            return await pull.fetch(max_items, FETCH_WAIT_S)
        except BusUnavailableError:
            self._declare_at = 0.0
            raise

    async def _work_or_rest(self, messages: Sequence[Message]) -> None:
        if not await self.work(messages):
            await asyncio.sleep(self._settings.event_retry_min_s)

    async def _run_simulated(self, pull: Pull, simulated_wait: Callable[[], Awaitable[None]]) -> None:
        """Let each event wait for its own time, beside the others, while more are heard."""

        async def wait(message: Message) -> bool:
            try:
                if self._is_work(message):
                    await simulated_wait()
            except SimulatedTroubleError as exc:
                await self._put_off(message, exc)
                return False
            return True

        async def hear() -> None:
            hand.take(await self._fetch(pull, min(self._settings.event_batch, await hand.room())))

        hand = InHand(wait, self._work_or_rest, limit=MAX_IN_HAND, batch=self._settings.event_batch)
        async with self._held(hand.messages):
            await hand.run(listen(hear, UNAVAILABLE_PAUSE_S, self._metrics.hearing))

    def _is_work(self, message: Message) -> bool:
        if self._takes_time is None:  # then each is, and need not be read for that
            return True
        data = read(message, self._event).data
        return data is None or self._takes_time(data)

    async def work(self, messages: Sequence[Message]) -> bool:
        """Handle and settle one batch; False if trouble kept all of it from being handled."""
        self._metrics.batch_size.observe(len(messages))
        together, alone = _split([read(message, self._event) for message in messages])
        async with self._held(messages):
            known = await self._stored(alone)
            troubles = await self._settle_all(
                [(each, Done(known[each.key], False)) for each in alone if each.key in known]
            )
            for group in filter(None, [together, *([each] for each in alone if each.key not in known)]):
                if troubles:  # what has just failed would most likely fail again
                    troubles += [await self._put_off(each.message, troubles[0]) for each in group]
                else:
                    troubles += await self._work_on(group)
        if troubles:
            log.warning("events wait", extra={"count": len(troubles), "error": _describe(troubles[0])})
        return len(troubles) < len(messages)

    async def _work_on(self, group: Sequence[Heard[M]]) -> list[Exception]:
        """Handle some events of different keys in one transaction, and settle each; the troubles met."""
        try:
            group = [each if each.named else await self._with_key(each) for each in group]
            results = await self._database.batch(self._take_effect, group)
        except Exception as exc:  # no item's fault: that would be its result
            return [await self._put_off(each.message, exc) for each in group]
        if any(isinstance(result, Done) and result.is_new for result in results):
            self._handled()
        reach("participant.after-commit")
        return await self._settle_all(list(zip(group, results, strict=True)))

    async def _stored(self, heard: Sequence[Heard[M]]) -> dict[str, Outcome]:
        """The outcomes that are known already: such events need no transaction, however many they are."""
        if not heard:
            return {}
        with suppress(StorageUnavailableError):  # whoever needs a transaction will meet it too
            return await self._database.read(lambda c: outcomes.stored(c, [each.key for each in heard]))
        return {}

    async def _settle_all(self, results: Sequence[tuple[Heard[M], Result | Exception]]) -> list[Exception]:
        done = [(heard, result) for heard, result in results if isinstance(result, Done)]
        rest = [(heard, result) for heard, result in results if not isinstance(result, Done)]
        settling = asyncio.gather(*(self._settle(heard, result) for heard, result in rest))
        untold, settled = await asyncio.gather(self._tell_all(done), settling)
        return [*untold, *(trouble for trouble in settled if trouble is not None)]

    async def _tell_all(self, done: Sequence[tuple[Heard[M], Done]]) -> list[Exception]:
        """Tell of results in one go, and be done with their events; the troubles that kept any from that."""
        if not done:
            return []
        reports = [outcome_reported(self._name, result.outcome, heard.retry) for heard, result in done]
        try:
            await self._bus.publish_all(outcome_channel(self._name), reports, TELL_TIMEOUT_S)
        except Exception as exc:
            return [await self._put_off(heard.message, exc) for heard, _ in done]
        reach("participant.after-outcome")
        troubles = []
        for heard, result in done:
            self._metrics.handled.labels(result.outcome.status if result.is_new else "repeated").inc()
            try:
                await heard.message.ack()
            except BusUnavailableError as exc:
                troubles.append(await self._put_off(heard.message, exc))
        return troubles

    async def _settle(self, heard: Heard[M], result: Refused | Exception) -> Exception | None:
        """Be done with an event that came to nothing; or the trouble that kept it from that."""
        try:
            if isinstance(result, Refused):
                await self._put_aside(heard, result)
            elif _is_trouble(result):
                raise result
            else:
                await self._refuse(heard, result)
        except Exception as exc:
            return await self._put_off(heard.message, exc)
        return None

    async def _refuse(self, heard: Heard[M], exc: Exception) -> None:
        reason = tidy(str(exc) if isinstance(exc, Refusal) else f"it cannot be handled: {type(exc).__name__}")
        refused = await self._database.write(
            lambda connection: outcomes.count_refusal(connection, heard.key, heard.retry, reason)
        )
        if refused.errors < self._settings.max_refusals:
            await heard.message.retry(self._settings.refusal_pause_s)
        else:
            await self._put_aside(heard, refused)

    async def _put_aside(self, heard: Heard[M], refused: Refused) -> None:
        letter = dead_letter(self._name, refused, heard.message, named=heard.named)
        await self._bus.publish(dead_letter_channel(self._name, refused.key), letter, TELL_TIMEOUT_S)
        if heard.named:
            failed = Outcome(refused.key, FAILED, refused.errors, reason=refused.reason)
            await self._tell(failed, refused.retry)
        log.error("event put aside", extra={"key": refused.key, "reason": refused.reason})
        self._metrics.handled.labels(FAILED).inc()
        self._metrics.dead_letters.inc()
        await heard.message.drop()

    async def _put_off(self, message: Message, exc: Exception) -> Exception:
        """Hear it again later; should that fail too, the broker delivers it again by itself."""
        self._metrics.trouble.labels(type(exc).__name__).inc()
        doublings = min(message.tries - 1, MAX_DOUBLINGS)
        delay_s = min(self._settings.event_retry_min_s * 2**doublings, self._settings.event_retry_max_s)
        with suppress(BusUnavailableError):
            await message.retry(delay_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
        return exc

    async def _tell(self, outcome: Outcome, retry: int) -> None:
        report = outcome_reported(self._name, outcome, retry)
        await self._bus.publish(outcome_channel(self._name), report, TELL_TIMEOUT_S)

    async def _with_key(self, heard: Heard[M]) -> Heard[M]:
        """Name an event that does not name itself: by its place, in a stream that may be made anew."""
        stamp = re.sub(r"\D", "", (await self._bus.stream_state(self._stream)).created)
        return replace(heard, key=f"{stamp}-{heard.message.sequence}")

    @asynccontextmanager
    async def _held(self, messages: Collection[Message]) -> AsyncIterator[None]:
        """While these are worked on, the broker delivers them to nobody else."""

        async def extend() -> None:
            while True:
                await asyncio.sleep(self._settings.ack_wait_s / EXTENSIONS)
                for message in list(messages):
                    with suppress(BusUnavailableError):
                        if not message.settled:
                            await message.working()

        task = asyncio.create_task(extend())
        try:
            yield
        finally:
            task.cancel()

    async def _declare(self) -> None:
        """See to it every few seconds that the durable consumer exists: the broker may have been wiped."""
        if time.monotonic() >= self._declare_at:
            await self._bus.ensure_durable(
                self._stream,
                self._name,
                self._subject,
                ack_wait_s=self._settings.ack_wait_s,
                metadata=TAKES_PART,
            )
            self._declare_at = time.monotonic() + DECLARE_INTERVAL_S


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.handled = Counter(
            "events_handled", "Events done with, by their outcome.", ["outcome"], registry=registry
        )
        self.dead_letters = Counter("dead_letters", "Events put aside.", registry=registry)
        self.trouble = Counter(
            "event_trouble", "Events put off, by the trouble.", ["error"], registry=registry
        )
        self.batch_size = Histogram(
            "event_batch_size", "Events fetched at once.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.hearing = hearing_gauge(registry)


def _split(heard: Sequence[Heard[M]]) -> tuple[list[Heard[M]], list[Heard[M]]]:
    """What may share a transaction, and what had better not: the one tried most often comes last."""
    together: dict[str, Heard[M]] = {}
    alone: list[Heard[M]] = []
    for each in heard:
        if each.is_first_try and each.key not in together:
            together[each.key] = each
        else:
            alone.append(each)
    return list(together.values()), sorted(alone, key=lambda each: each.message.tries)


def _is_trouble(exc: Exception) -> bool:
    """Whether an event's error is not its own: of a database's errors only those about the data are."""
    return isinstance(exc, DBAPIError) and not isinstance(exc, DataError | IntegrityError)


def _describe(exc: Exception) -> str:
    known = isinstance(exc, StorageUnavailableError | BusUnavailableError)
    return str(exc) if known else type(exc).__name__
