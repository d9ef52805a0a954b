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
from servicekit.batching import QueueFullError
from servicekit.bus import Bus, BusUnavailableError, Message
from servicekit.db import StorageUnavailableError

log = logging.getLogger("checkout.timeline")

MAX_OUTCOMES = 256
FETCH_WAIT_S = 5.0
RETRY_S = 1.0


class Timeline:
    """Reads the stream of outcomes; acknowledges each once it is in the journal."""

    def __init__(self, bus: Bus, journal: Journal, metrics: ChoreographyMetrics) -> None:
        self._bus = bus
        self._journal = journal
        self._metrics = metrics

    async def run(self) -> None:
        """For ever."""
        pull = self._bus.pull(OUTCOMES.name, TIMELINE)
        while True:
            try:
                messages = await pull.fetch(MAX_OUTCOMES, FETCH_WAIT_S)
                if messages:
                    await self.hear(messages)
            except BusUnavailableError:
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.warning("outcomes could not be recorded", exc_info=True)
                await asyncio.sleep(RETRY_S)

    async def hear(self, messages: Sequence[Message]) -> None:
        """Record one batch of outcomes in one transaction, then acknowledge it."""
        readable: list[tuple[Message, Outcome]] = []
        now = datetime.now(UTC)
        for message in messages:
            try:
                readable.append((message, outcome_heard(message.subject, message.data, now)))
            except UnreadableOutcomeError as exc:
                await self._drop(message, "unreadable", str(exc))
        try:
            results = await self._journal.hear([outcome for _, outcome in readable])
        except (StorageUnavailableError, QueueFullError) as exc:
            log.warning("outcomes wait for the database", extra={"error": str(exc)})
            for message, _ in readable:
                await message.retry(RETRY_S)
            return
        for (message, outcome), result in zip(readable, results, strict=True):
            if isinstance(result, UnknownOrderError):
                await self._drop(message, "unknown", "it belongs to no choreographed order")
            elif isinstance(result, Exception):
                await self._drop(message, "unrecordable", type(result).__name__)
            else:
                self._metrics.heard.labels(outcome.status.value).inc()
                await message.ack()

    async def _drop(self, message: Message, kind: str, why: str) -> None:
        self._metrics.dropped.labels(kind).inc()
        log.warning("outcome dropped", extra={"channel": message.subject, "error": why})
        await message.drop()
