"""How the conductor tells one service something: a call bounded in time, size, attempts and number.

What a reply means is decided in `checkout.replies`; what becomes of the step, by the conductor.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_base

from checkout.metrics import CallMetrics
from checkout.orders import Outcome, StepStatus
from checkout.replies import CallError, MisroutedError, NoSlotError, RefusedError, Reply, TroubleError, judge
from checkout.settings import Settings

log = logging.getLogger("checkout.clients")

MAX_REPLY_BYTES = 65_536
# Well below the services' own keep-alive: a connection is never reused while it is being closed.
KEEP_ALIVE_S = 15.0
MAX_BACKOFF_S = 2.0
# Nobody listens where the service should be: it is down, however soon it is back.
UNREACHABLE = "unreachable"
# Else it is failing after so many failures in a row, and so long without an answer.
FAILING_AFTER = 5
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

    It speaks through a bare httpx transport, which knows no redirects, no cookies and no proxies.
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._headers = httpx.Headers(
            {
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",  # aiohttp would ask for gzip, which a proxy may then do
            }
        )
        self._urls: dict[str, httpx.URL] = {}  # parsed once for each of the few paths
        self._transport = transport
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

    async def tell(
        self,
        path: str,
        command: Mapping[str, Any],
        reply: type[Reply],
        on_trouble: Callable[[str], None],
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

    async def _tell(self, message: "_Message", on_trouble: Callable[[str], None]) -> Told:
        try:
            return Told(1, await self._attempt(message))
        except TroubleError as error:
            on_trouble(error.slug)
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
        await self._take_slot()
        started = time.perf_counter()
        outcome = "cancelled"
        self._in_flight.inc()
        try:
            timeout_s = min(self._settings.call_timeout_s, max(0.05, message.deadline - self._clock()))
            status, headers, body = await self._exchange(message.path, message.content, timeout_s)
            result = judge(self.name, status, headers, body, message.reply)
            if result.order_id != message.order_id:
                raise TroubleError("reply-for-another-order")
            outcome = "succeeded"
            self._answers(well=True)
            return result
        except CallError as error:
            # A refusal's slug is the service's own: it must not become a label.
            outcome = "refused" if isinstance(error, RefusedError) else error.slug
            self._answers(well=isinstance(error, RefusedError), gone=error.slug == UNREACHABLE)
            if isinstance(error, MisroutedError):
                self._metrics.misrouted.labels(self.name).inc()
                log.warning(
                    "misrouted call", extra={"to": self.name, "path": message.path, "error": error.slug}
                )
            raise
        finally:
            self._slots.release()
            self._in_flight.dec()
            attempts = self._metrics.attempts
            (self._succeeded if outcome == "succeeded" else attempts.labels(self.name, outcome)).inc()
            self._seconds.observe(time.perf_counter() - started)

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
            self._metrics.attempts.labels(self.name, "too-many-in-flight").inc()
            raise NoSlotError("too-many-in-flight") from None

    async def _exchange(
        self, path: str, content: bytes, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request and its whole reply within one deadline (httpx's own timeouts are per operation)."""
        url = self._urls.get(path) or self._urls.setdefault(path, httpx.URL(self._base_url + path))
        request = httpx.Request("POST", url, headers=self._headers, content=content)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    headers = {
                        key.decode("latin-1").lower(): value.decode("latin-1")
                        for key, value in response.headers.raw
                    }
                    return response.status_code, headers, await _read(response, headers)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TroubleError("timeout") from None
        except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
            raise TroubleError(_transport_slug(exc)) from exc


@dataclass(frozen=True)
class _Message:
    """One command on its way; `deadline` is by the monotonic clock, in seconds."""

    path: str
    order_id: str
    content: bytes
    reply: type[Reply]
    deadline: float


class _StopBefore(stop_base):
    """No retry that would start after the deadline, or for which the budget has nothing left."""

    def __init__(self, deadline: float, budget: RetryBudget, clock: Callable[[], float]) -> None:
        self._deadline = deadline
        self._budget = budget
        self._clock = clock

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self._clock() + retry_state.upcoming_sleep >= self._deadline or not self._budget.spend()


async def _read(response: httpx.Response, headers: Mapping[str, str]) -> bytes:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise TroubleError("reply-compressed")
    assert isinstance(response.stream, httpx.AsyncByteStream)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.stream:
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise TroubleError("reply-too-large")
        chunks.append(chunk)
    return b"".join(chunks)


def _transport_slug(exc: Exception) -> str:
    # httpx-aiohttp maps a lost connection to ConnectTimeout: aiohttp's own error, its cause, is exact.
    cause = exc.__cause__ if isinstance(exc.__cause__, aiohttp.ClientError) else exc
    if isinstance(cause, aiohttp.ClientConnectorError | httpx.ConnectError | ConnectionRefusedError):
        return UNREACHABLE
    if isinstance(cause, aiohttp.ClientPayloadError | httpx.RemoteProtocolError):
        return "reply-truncated"
    if isinstance(cause, aiohttp.ServerTimeoutError | httpx.TimeoutException):
        return "timeout"
    if isinstance(cause, aiohttp.ClientResponseError):
        return "reply-not-http"
    return "connection-lost"


def http_transport(
    max_in_flight: int, pool: Literal["aiohttp", "httpx"] = "aiohttp"
) -> httpx.AsyncBaseTransport:
    """The transport to one service: httpx on aiohttp's connections, at most `max_in_flight` of them.

    Its own pool has the same bounds. It is for measuring only: it leaks connections when calls are cancelled.
    """
    if pool == "httpx":
        limits = httpx.Limits(
            max_connections=max_in_flight,
            max_keepalive_connections=max_in_flight,
            keepalive_expiry=KEEP_ALIVE_S,
        )
        return httpx.AsyncHTTPTransport(limits=limits, trust_env=False)

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=max_in_flight, keepalive_timeout=KEEP_ALIVE_S)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return AiohttpTransport(client=session, trust_env=False)
