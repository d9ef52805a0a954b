"""What the checkout service counts, beyond what every service does."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from checkout.orders import OrderStatus
from servicekit.db import StorageUnavailableError
from servicekit.hearing import hearing_gauge
from servicekit.metrics import LATENCY_BUCKETS_S

Census = Callable[[], Awaitable[tuple[dict[str, int], datetime | None]]]


class CallMetrics:
    """The conductor's calls, by service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.attempts = Counter(
            "step_attempts", "Calls made, by how they ended.", ["service", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "step_attempt_seconds",
            "How long calls took.",
            ["service"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.misrouted = Counter(
            "misrouted_calls", "Calls that did not reach the service's route.", ["service"], registry=registry
        )
        self.in_flight = Gauge("calls_in_flight", "Calls under way.", ["service"], registry=registry)


class ChoreographyMetrics:
    """Outcomes heard, and whether events get out."""

    def __init__(self, registry: CollectorRegistry, failing_s: Callable[[], float]) -> None:
        self.heard = Counter("outcomes_heard", "Outcomes recorded.", ["status"], registry=registry)
        self.dropped = Counter(
            "outcomes_dropped",
            "Messages on outcome channels that were none of ours.",
            ["why"],
            registry=registry,
        )
        self.hearing = hearing_gauge(registry)
        failing = Gauge(
            "publish_failing_seconds",
            "For how long no event could be emitted; 0: it works.",
            registry=registry,
        )
        failing.set_function(failing_s)


class OrderMetrics:
    """Orders and passes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.orders = Gauge("orders", "Orders in the journal, by status.", ["status"], registry=registry)
        self.oldest_s = Gauge(
            "oldest_unfinished_order_seconds", "Age of the oldest unfinished order.", registry=registry
        )
        self.accepted = Counter("orders_accepted", "Orders accepted.", ["style"], registry=registry)
        self.replayed = Counter(
            "orders_replayed", "Requests answered for an idempotency key seen before.", registry=registry
        )
        self.passes = Gauge(
            "passes_running", "Passes under way: first or later.", ["kind"], registry=registry
        )
        self._census: asyncio.Future[None] | None = None
        self.streams = Gauge("event_streams", "Event streams open.", registry=registry)

    async def refresh(self, census: Census) -> None:
        """Take over a census of the journal; scrapes at the same time share one."""
        if self._census is None:
            self._census = asyncio.ensure_future(self._take(census))
        try:
            await asyncio.shield(self._census)
        finally:
            self._census = None

    async def _take(self, census: Census) -> None:
        try:
            counted, oldest = await census()
        except StorageUnavailableError:
            # The other figures matter most just then: they are exposed all the same.
            self.oldest_s.set(nan)
            for status in OrderStatus:
                self.orders.labels(status.value).set(nan)
            return
        self.oldest_s.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0)
        for status in OrderStatus:
            self.orders.labels(status.value).set(counted.get(status.value, 0))
