"""How the conductor tells one service something: a bounded, retried call whose reply is data to distrust.

`judge` decides, without I/O, what a reply means. A refusal is the service's own well-formed "no"; trouble is
whatever may pass by itself; a misrouted call reached something that is not the service, or not its route.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import orjson
from httpx_aiohttp import AiohttpTransport
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_base

from checkout.metrics import CallMetrics
from checkout.settings import Settings

MAX_REPLY_BYTES = 65_536
# Well below the services' own keep-alive: a connection is never reused while it is being closed.
KEEP_ALIVE_S = 15.0
MAX_BACKOFF_S = 2.0
MAX_REFUSAL_TEXT = 300
RETRIED_STATUSES = frozenset({408, 425, 429})
REFUSAL_STATUSES = frozenset({400, 409, 422})


class CallError(Exception):
    """A call that did not succeed; `slug` says why in one word for the step's `last_error`."""

    def __init__(self, slug: str, retry_after_s: float | None = None) -> None:
        super().__init__(slug)
        self.slug = slug
        self.retry_after_s = retry_after_s


class TroubleError(CallError):
    """May pass by itself: called again within the pass."""


class MisroutedError(CallError):
    """Reached something else than the service's route: called again by a later pass only."""


class NoSlotError(CallError):
    """Too many calls to this service are in flight: left to a later pass."""


class RefusedError(CallError):
    """The service said no, by a problem type of its own."""


@dataclass(frozen=True)
class Told:
    """What came of telling a service: its reply, or the error of the last of `attempts` tries."""

    attempts: int
    reply: BaseModel | None = None
    error: CallError | None = None


def judge(
    service: str, status: int, headers: Mapping[str, str], body: bytes, reply: type[BaseModel]
) -> BaseModel:
    """The reply of a call that succeeded. Raises RefusedError, MisroutedError or TroubleError."""
    if status in (200, 201):
        return _parse(headers, body, reply)
    if status in RETRIED_STATUSES or status >= 500:
        raise TroubleError(f"status-{status}", _retry_after_s(headers))
    if status in REFUSAL_STATUSES and (slug := _own_problem(service, headers, body)):
        raise RefusedError(slug)
    if 200 <= status < 300:
        raise TroubleError(f"unexpected-status-{status}")
    raise MisroutedError(f"misrouted-{status}")


def _parse(headers: Mapping[str, str], body: bytes, reply: type[BaseModel]) -> BaseModel:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise TroubleError("reply-wrong-content-type")
    try:
        document = orjson.loads(body)
    except ValueError:
        raise TroubleError("reply-malformed") from None
    try:
        return reply.model_validate(document)
    except ValidationError:
        raise TroubleError("reply-wrong-shape") from None


def _own_problem(service: str, headers: Mapping[str, str], body: bytes) -> str | None:
    """The slug of the service's own problem type: `…/problems/SERVICE/SLUG`; None for anything else."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/problem+json":
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(kind, str):
        return None
    _, found, slug = kind.rpartition(f"/problems/{service}/")
    return slug[:MAX_REFUSAL_TEXT] if found and slug.replace("-", "").isalnum() else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 7 else None


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
    """Tells one service things: bounded in attempts, in time, in flight, and by a retry budget."""

    def __init__(
        self,
        name: str,
        base_url: str,
        token: str,
        http: httpx.AsyncClient,
        settings: Settings,
        metrics: CallMetrics,
    ) -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._http = http
        self._settings = settings
        self._metrics = metrics
        self._slots = asyncio.Semaphore(settings.max_in_flight)
        self._budget = RetryBudget(settings.retry_budget_ratio, settings.retry_budget_floor_per_s)

    async def tell(
        self,
        path: str,
        command: Mapping[str, Any],
        reply: type[BaseModel],
        on_trouble: Callable[[str], None],
    ) -> Told:
        """Send one command until it is answered or the bounds are reached; never raises for a bad answer.

        `on_trouble` hears the slug of the first failed try, before any retry.
        """
        content = orjson.dumps(command)
        deadline = time.monotonic() + self._settings.pass_timeout_s * 0.9
        attempts = 0

        async def once() -> BaseModel:
            nonlocal attempts
            attempts += 1
            return await self._attempt(path, content, reply, deadline)

        def before_retry(state: RetryCallState) -> None:
            if state.attempt_number == 1:
                on_trouble(_error_of(state).slug)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TroubleError),
            stop=stop_after_attempt(self._settings.call_max_attempts) | _StopBefore(deadline, self._budget),
            wait=self._pause_s,
            before_sleep=before_retry,
            reraise=True,
        )
        self._budget.earn()
        try:
            answer: BaseModel = await retrying(once)
        except CallError as error:
            return Told(attempts, error=error)
        return Told(attempts, answer)

    def _pause_s(self, state: RetryCallState) -> float:
        """Full jitter under an exponential ceiling, or what the service asked for."""
        asked_s = _error_of(state).retry_after_s
        if asked_s is not None:
            return asked_s
        ceiling_s = min(self._settings.call_backoff_s * 2.0**state.attempt_number, MAX_BACKOFF_S)
        return random.uniform(0, ceiling_s)  # noqa: S311 - jitter, no secret

    async def _attempt(self, path: str, content: bytes, reply: type[BaseModel], deadline: float) -> BaseModel:
        try:
            async with asyncio.timeout(self._settings.slot_timeout_s):
                await self._slots.acquire()
        except TimeoutError:
            self._metrics.attempts.labels(self.name, "no-slot").inc()
            raise NoSlotError("too-many-in-flight") from None
        started = time.perf_counter()
        outcome = "cancelled"
        self._metrics.in_flight.labels(self.name).inc()
        try:
            timeout_s = min(self._settings.call_timeout_s, max(0.05, deadline - time.monotonic()))
            status, headers, body = await self._exchange(path, content, timeout_s)
            result = judge(self.name, status, headers, body, reply)
            outcome = "succeeded"
            return result
        except MisroutedError as error:
            outcome = error.slug
            self._metrics.misrouted.labels(self.name).inc()
            raise
        except CallError as error:
            outcome = error.slug
            raise
        finally:
            self._slots.release()
            self._metrics.in_flight.labels(self.name).dec()
            self._metrics.attempts.labels(self.name, outcome).inc()
            self._metrics.seconds.labels(self.name).observe(time.perf_counter() - started)

    async def _exchange(
        self, path: str, content: bytes, timeout_s: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request and its whole reply within one deadline (httpx's own timeouts are per operation)."""
        request = httpx.Request("POST", self._base_url + path, headers=self._headers, content=content)
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._http.send(request, stream=True)
                try:
                    return response.status_code, response.headers, await _read(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TroubleError("timeout") from None
        except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
            raise TroubleError(_transport_slug(exc)) from exc


class _StopBefore(stop_base):
    """No retry that would start after the deadline, or for which the budget has nothing left."""

    def __init__(self, deadline: float, budget: RetryBudget) -> None:
        self._deadline = deadline
        self._budget = budget

    def __call__(self, retry_state: RetryCallState) -> bool:
        return time.monotonic() + retry_state.upcoming_sleep >= self._deadline or not self._budget.spend()


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise TroubleError("reply-compressed")
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise TroubleError("reply-too-large")
        chunks.append(chunk)
    return b"".join(chunks)


def _transport_slug(exc: Exception) -> str:
    # httpx-aiohttp maps a lost connection to ConnectTimeout: aiohttp's own error, its cause, is exact.
    cause = exc.__cause__ if isinstance(exc.__cause__, aiohttp.ClientError) else exc
    if isinstance(cause, aiohttp.ClientConnectorError | httpx.ConnectError | ConnectionRefusedError):
        return "unreachable"
    if isinstance(cause, aiohttp.ClientPayloadError | httpx.RemoteProtocolError):
        return "reply-truncated"
    if isinstance(cause, aiohttp.ServerTimeoutError | httpx.TimeoutException):
        return "timeout"
    if isinstance(cause, aiohttp.ClientResponseError):
        return "reply-not-http"
    return "connection-lost"


def _error_of(state: RetryCallState) -> CallError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, CallError)
    return error


def http_client(max_in_flight: int, timeout_s: float) -> httpx.AsyncClient:
    """An HTTP client for one service: no redirects, no proxy from the environment, no cookies kept."""

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=max_in_flight, keepalive_timeout=KEEP_ALIVE_S)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session),
        follow_redirects=False,
        trust_env=False,
        timeout=timeout_s,
    )
