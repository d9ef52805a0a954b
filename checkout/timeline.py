"""Heard: outcomes. A listener of its own inside checkout that writes down who has done what.

It records whatever comes, by participant name: one that did not exist yesterday needs no change here. What
cannot be read, or belongs to no choreographed order, is counted, logged and dropped.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from checkout.broker import OUTCOMES, TIMELINE
from checkout.events import UnreadableOutcomeError, outcome_heard
from checkout.journal import Journal, UnknownOrderError
from checkout.metrics import ChoreographyMetrics
from checkout.orders import Outcome
from servicekit.batching import BatcherClosedError, QueueFullError
from servicekit.bus import Bus, BusUnavailableError, Message
from servicekit.crashpoints import reach
from servicekit.db import StorageUnavailableError
from servicekit.hearing import listen

log = logging.getLogger("checkout.timeline")

MAX_OUTCOMES = 256
FETCH_WAIT_S = 2.0
RETRY_S = 1.0
# Batches that wait for the disk while more are read.
MAX_UNWRITTEN = 64


class Timeline:
    """Reads the stream of outcomes; acknowledges each once it is in the journal."""

    def __init__(self, bus: Bus, journal: Journal, metrics: ChoreographyMetrics) -> None:
        self._bus = bus
        self._journal = journal
        self._metrics = metrics

    async def run(self) -> None:
        """For ever."""
        pull = self._bus.pull(OUTCOMES.name, TIMELINE)
        hearing: set[asyncio.Task[None]] = set()

        async def step() -> None:
            if len(hearing) >= MAX_UNWRITTEN:
                await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
            if messages := await pull.fetch(MAX_OUTCOMES, FETCH_WAIT_S):
                task = asyncio.create_task(self._hear_in_full(messages))
                hearing.add(task)
                task.add_done_callback(hearing.discard)

        try:
            await listen(step, RETRY_S, self._metrics.hearing)
        finally:
            for task in hearing:
                task.cancel()

    async def _hear_in_full(self, messages: Sequence[Message]) -> None:
        try:
            await self.hear(messages)
        except BusUnavailableError:  # whoever listens meets it too; what is not acknowledged comes again
            pass
        except Exception:
            log.exception("outcomes could not be recorded")

    async def hear(self, messages: Sequence[Message]) -> None:
        """Record one batch of outcomes, and acknowledge each once it is on disk."""
        readable: list[tuple[Message, Outcome]] = []
        unreadable: list[tuple[Message, str]] = []
        now = datetime.now(UTC)
        for message in messages:
            try:
                readable.append((message, outcome_heard(message.subject, message.data, now)))
            except UnreadableOutcomeError as exc:
                unreadable.append((message, str(exc)))
        await self._drop("unreadable", unreadable)
        try:
            results = await self._journal.hear([outcome for _, outcome in readable])
        except StorageUnavailableError as exc:
            await self._put_off([message for message, _ in readable], exc)
            return
        reach("checkout.after-heard")
        unknown: list[tuple[Message, str]] = []
        unrecordable: list[tuple[Message, str]] = []
        waiting: list[Message] = []
        for (message, outcome), result in zip(readable, results, strict=True):
            if isinstance(result, UnknownOrderError):
                unknown.append((message, "it belongs to no choreographed order"))
            elif isinstance(result, StorageUnavailableError | QueueFullError | BatcherClosedError):
                waiting.append(message)
                trouble = result
            elif isinstance(result, BaseException):
                unrecordable.append((message, type(result).__name__))
            else:
                self._metrics.heard.labels(outcome.status.value).inc()
                await message.ack()
        if waiting:
            await self._put_off(waiting, trouble)
        await self._drop("unknown", unknown)
        await self._drop("unrecordable", unrecordable)

    async def _put_off(self, messages: Sequence[Message], exc: Exception) -> None:
        log.warning("outcomes wait for the database", extra={"error": str(exc)})
        for message in messages:
            await message.retry(RETRY_S)

    async def _drop(self, kind: str, messages: Sequence[tuple[Message, str]]) -> None:
        """Give these up; the log names the first of them, for there may be any number."""
        if not messages:
            return
        self._metrics.dropped.labels(kind).inc(len(messages))
        first, why = messages[0]
        log.warning(
            "outcomes dropped", extra={"count": len(messages), "channel": first.subject, "error": why}
        )
        for message, _ in messages:
            await message.drop()
