"""How the client commands call the services: one HTTP client, bounded retries, pages, readable refusals.

Only trouble that may pass is tried again (no connection, timeouts, cut or unreadable replies, 408, 425, 429,
5xx), with jitter, honouring `Retry-After`, for as long as the caller's patience lasts. It refuses to take
anything but a JSON object for an answer that went well.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lab.errors import FAILED, LabError
from lab.system import CONDUCTOR, HOST, System

MAX_CONNECTIONS = 256
KEEPALIVE_S = 2.0  # well below the services', so that no request meets a connection that is being closed
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
PROBE_S = 2.0
MOST_PAGES = 100_000  # of at least one item each: a service that pages for ever is broken
TRANSIENT_STATUSES = frozenset({408, 425, 429})

T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a call may go on: in all with its retries, and each try. The rest is for tests."""

    total_s: float
    try_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered, and at which try; a body that is no JSON object (an error's) is empty."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One request; `headers` may differ from try to try (counted from 1)."""

    method: str
    url: str
    headers: Callable[[int], Mapping[str, str]] = field(default=lambda _: {})
    params: Mapping[str, str | int] = field(default_factory=dict)
    content: bytes | None = None


class NoAnswerError(LabError):
    """A service gave no usable answer for as long as patience lasted; what it did is unknown."""

    def __init__(self, message: str) -> None:
        super().__init__(message, FAILED)


class RefusedError(LabError):
    """A service refused: its problem document, as a person reads it."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("\n".join(problem_lines(answer)), FAILED)
        self.answer = answer


class _TransientError(Exception):
    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@asynccontextmanager
async def open_client(transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The HTTP client of one command; tests give a transport of their own."""
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_S)
    chosen = transport or AiohttpTransport(limits=limits, trust_env=False)
    async with httpx.AsyncClient(transport=chosen, trust_env=False, follow_redirects=False) as client:
        yield client


def bearer(token: str) -> Callable[[int], Mapping[str, str]]:
    """The headers of a call with a token."""
    return lambda _: {"Authorization": f"Bearer {token}"}


def anonymous(_: int) -> Mapping[str, str]:
    """The headers of a call without a token."""
    return {}


async def send(client: httpx.AsyncClient, call: Call, patience: Patience) -> Answer:
    """Call until an answer is final, 4xx included; raise `NoAnswerError` when patience is out."""
    started = patience.clock()

    def left_s() -> float:
        return patience.total_s - (patience.clock() - started)

    def is_enough(state: RetryCallState) -> bool:
        return state.upcoming_sleep >= left_s()

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(_TransientError),
        wait=_wait_s,
        stop=is_enough,
        sleep=patience.sleep,
        reraise=True,
    )
    try:
        async for attempt in retrying:
            with attempt:
                number = attempt.retry_state.attempt_number
                try_s = max(0.1, min(patience.try_s, left_s()))
                return await _try(client, call, number, try_s)
    except _TransientError as error:
        raise NoAnswerError(f"{call.method} {call.url}: {error}") from error
    raise AssertionError("tenacity ends by an answer or an error")


def expect(answer: Answer) -> dict[str, Any]:
    """The body of an answer that went well; raise `RefusedError` with the problem of one that did not."""
    if answer.status >= 300:
        raise RefusedError(answer)
    return answer.body


async def pages(
    client: httpx.AsyncClient, call: Call, key: str, patience: Patience
) -> AsyncIterator[list[dict[str, Any]]]:
    """The lists called `key` of all pages, by their cursors; raise `LabError` where one is no page."""
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        params = {**call.params, **({} if cursor is None else {"cursor": cursor})}
        page = expect(await send(client, Call(call.method, call.url, call.headers, params), patience))
        items, following = page.get(key), page.get("next")
        if not isinstance(items, list) or not (following is None or isinstance(following, str)):
            raise LabError(f"{call.url} answered what is no page of {key}", FAILED)
        yield items
        if following is None:
            return
        if following == cursor:
            raise LabError(f"{call.url} gives the same page again and again", FAILED)
        cursor = following
    raise LabError(f"{call.url} has more than {MOST_PAGES} pages", FAILED)


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do the work for all items, a bounded number at once; the first error ends all."""
    rest = iter(items)

    async def worker() -> None:
        for item in rest:
            await work(item)

    tasks = [asyncio.ensure_future(worker()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ensure_running(client: httpx.AsyncClient, system: System) -> None:
    """Raise `NoAnswerError`, saying what to do, unless the checkout service or its supervisor is there.

    A checkout service that is down while `duet up` runs will come back: that is what retries are for.
    """
    try:
        await _try(client, Call("GET", f"{system.url(CONDUCTOR)}/healthz"), 1, PROBE_S)
    except _TransientError:
        try:
            async with asyncio.timeout(PROBE_S):
                _, writer = await asyncio.open_connection(HOST, system.control_port)
            writer.close()
        except (OSError, TimeoutError):
            raise NoAnswerError(
                f"nothing answers at {system.url(CONDUCTOR)}: is duet up running? "
                f"Start it with: duet up --port-base {system.port_base}"
            ) from None


def problem_lines(answer: Answer) -> list[str]:
    """A problem document (RFC 9457) as a person reads it: title, detail, and each field at fault."""
    body = answer.body
    lines = [f"{body.get('title', 'The service refused')} (HTTP {answer.status})"]
    if body.get("detail"):
        lines.append(str(body["detail"]))
    for error in body.get("errors", []):
        where = error.get("pointer") or error.get("parameter") or error.get("header") or "#"
        lines.append(f"  {where}: {error.get('detail', '')}")
    if body.get("type"):
        lines.append(f"See {body['type']}")
    return lines


async def _try(client: httpx.AsyncClient, call: Call, number: int, try_s: float) -> Answer:
    headers = dict(call.headers(number))
    if call.content is not None:
        headers.setdefault("Content-Type", "application/json")
    try:
        async with asyncio.timeout(try_s):
            response = await client.request(
                call.method,
                call.url,
                headers=headers,
                params=call.params or None,
                content=call.content,
                timeout=None,  # httpx's is per operation: one around the whole call is above
            )
    except TimeoutError as error:
        raise _TransientError(f"no answer within {try_s:.0f} s") from error
    except (httpx.TransportError, aiohttp.ClientError, ConnectionError) as error:
        raise _TransientError(str(error) or type(error).__name__) from error
    body = _object(response.content)
    if response.status_code in TRANSIENT_STATUSES or response.status_code >= 500:
        answer = Answer(response.status_code, body or {}, response.headers)
        raise _TransientError(" - ".join(problem_lines(answer)), _retry_after_s(response.headers))
    if body is None and response.is_success:
        raise _TransientError(f"HTTP {response.status_code} with a body that is no JSON object")
    return Answer(response.status_code, body or {}, response.headers, number)


_backoff_s = wait_random_exponential(multiplier=FIRST_BACKOFF_S, max=LONGEST_BACKOFF_S)


def _wait_s(state: RetryCallState) -> float:
    """Full jitter, on top of what the service asked for (its own value in seconds, RFC 9110)."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, _TransientError) else 0.0
    return asked_s + _backoff_s(state)


def _retry_after_s(headers: Mapping[str, str]) -> float:
    told = headers.get("Retry-After", "")
    return float(told) if told.isascii() and told.isdigit() else 0.0


def _object(content: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(content)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
