"""Prometheus metrics, in a registry of the application's own, so that two applications never share one."""

import time
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a client makes up must not become a label.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One registry, with what every service counts; a service adds its own to `registry`.

    `refreshers` run before each scrape, for figures that are read rather than counted.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refreshers: list[Callable[[], Awaitable[None]]] = []
        ProcessCollector(registry=self.registry)
        self.batches = BatchMetrics(self.registry)
        labels = ("method", "route", "status")
        self._requests = Counter("http_requests", "Requests answered.", labels, registry=self.registry)
        # Looking a child up by its labels costs more than counting.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._latency = Histogram(
            "http_request_seconds",
            "Time until the answer was complete.",
            ("method", "route"),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the template, never the path as sent."""
        children = self._children.get((method, route, status))
        if children is None:
            children = self._requests.labels(method, route, str(status)), self._latency.labels(method, route)
            self._children[method, route, status] = children
        answered, latency = children
        answered.inc()
        latency.observe(seconds)

    async def scrape(self) -> Response:
        """The text exposition of everything in the registry."""
        for refresh in self.refreshers:
            await refresh()
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class BatchMetrics:
    """What batchers do, by the name of each: how large their batches are, and how long items wait for one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._size = Histogram(
            "batch_size", "Items of a batch.", ["batcher"], buckets=SIZE_BUCKETS, registry=registry
        )
        self._wait = Histogram(
            "batch_wait_seconds",
            "How long the oldest item of a batch had waited when it started.",
            ["batcher"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )

    def of(self, name: str) -> Callable[[int, float], None]:
        """What the batcher of that name tells of each batch: its size, its oldest item's wait in seconds."""
        size, wait = self._size.labels(name), self._wait.labels(name)

        def observe(items: int, waited_s: float) -> None:
            size.observe(items)
            wait.observe(waited_s)

        return observe


class RequestMetrics:
    """ASGI middleware that reports each request to `Metrics`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        started = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            method = scope["method"] if scope["method"] in METHODS and route != "(none)" else "(any)"
            self._metrics.observe_request(method, route, status, time.perf_counter() - started)
