"""Serve an application by uvicorn, with the bounds that uvicorn lacks and an orderly end.

Headers must arrive within a time and a size. On SIGTERM or SIGINT the service first goes unready, then
stops taking connections, lets requests in flight finish, and returns to its caller, who closes the rest.
"""

import asyncio
import gc
import logging
import os
import resource
import signal
import threading
from types import FrameType
from typing import ClassVar

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from servicekit.settings import ServiceSettings
from servicekit.web import Health

log = logging.getLogger("servicekit.server")

GRACEFUL_SHUTDOWN_S = 4
EXIT_WITHIN_S = 9.0
EXIT_NOT_CLOSED = 3
# Far above our clients' expiry: a client that reuses a connection must not race its closing.
KEEP_ALIVE_S = 75
MAX_HEADER_BYTES = 65_536
# One read may bring the headers and a good part of the body: that much more is no offence.
READ_BYTES = 262_144
OPEN_FILES = 65_536
# Allocations between two young collections; the default, 700, means several in each request.
GC_THRESHOLD = 50_000


class BoundedHeadersProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with a deadline and a size limit for request headers."""

    header_timeout_s: ClassVar[float] = 10.0
    _deadline: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """A connection owes us its first request."""
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is owed any more."""
        self._have_headers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what comes before the headers are complete."""
        if self._in_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES + READ_BYTES:
                self.transport.close()
                return
        super().data_received(data)
        if self._deadline is None and self.parser is not None and self._is_idle():
            self._await_headers()  # uvicorn's keep-alive timer stops at any byte, a request begun or not

    def on_message_begin(self) -> None:
        """A request starts: the clock for its headers runs, if it does not already."""
        super().on_message_begin()
        if self._deadline is None:
            self._await_headers()

    def on_headers_complete(self) -> None:
        """The headers are there: stop the clock, and let uvicorn start the request."""
        self._have_headers()
        super().on_headers_complete()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        self._deadline = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _have_headers(self) -> None:
        self._in_headers = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, health: Health, drain_s: float) -> None:
        super().__init__(config)
        self._health = health
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again after serving, before our resources are closed.
        if self._health.draining:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        _end_within(EXIT_WITHIN_S)
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(self._health.drain)
        loop.call_soon_threadsafe(loop.call_later, self._drain_s, self._stop)

    def _stop(self) -> None:
        self.should_exit = True


def _end_within(seconds: float) -> None:
    """End the process by then at the latest, whatever hangs: what it has accepted is on disk."""

    def end() -> None:
        log.error("not everything could be closed in time", extra={"after_s": seconds})
        os._exit(EXIT_NOT_CLOSED)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


async def serve(app: FastAPI, settings: ServiceSettings, health: Health) -> None:
    """Serve until SIGTERM or SIGINT. Raises SystemExit if the address cannot be bound."""
    raise_open_files_limit()
    spare_the_collector()
    protocol = type("Protocol", (BoundedHeadersProtocol,), {"header_timeout_s": settings.header_timeout_s})
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="none",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
    await _Server(config, health, settings.drain_s).serve()


def spare_the_collector() -> None:
    """What has been loaded by now stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def raise_open_files_limit() -> None:
    """Allow as many open files (connections) as the system grants without asking, up to a bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
