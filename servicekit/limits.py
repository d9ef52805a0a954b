"""Bounds on what a client may cost, as pure ASGI middleware (BaseHTTPMiddleware hides disconnects).

Too many requests at once: 503. A body that is too large: 413, without reading on; too slow: 408; not JSON
by its content type: 415. Slow headers never reach ASGI: `servicekit.server` bounds them.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit.problems import Catalogue, ProblemError

# Health and metrics answer also when there is too much work.
UNBOUNDED_PATHS = ("/healthz", "/readyz", "/metrics")
BODILESS_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
CLOSE = {"Connection": "close"}


class RequestLimit:
    """At most `max_requests` requests at once; one more gets 503 with Retry-After.

    It stands twice in each application: around `BodyLimit`, wide, for what is still being received, and
    inside, for work: so clients that send slowly take no place from those whose request is complete.
    """

    def __init__(self, app: ASGIApp, catalogue: Catalogue, max_requests: int) -> None:
        self._app = app
        self._catalogue = catalogue
        self._max_requests = max_requests
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in UNBOUNDED_PATHS:
            await self._app(scope, receive, send)
            return
        if self._in_flight >= self._max_requests:
            detail = f"{self._max_requests} requests are in flight already."
            problem = ProblemError("overloaded", detail)
            await self._catalogue.response(problem)(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1


class BodyLimit:
    """Reads each body whole before the app sees the request: at most `max_bytes`, within `timeout_s`.

    `max_bytes_at` says what else holds at some paths.
    """

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        max_bytes: int,
        timeout_s: float,
        max_bytes_at: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._max_bytes = max_bytes
        self._max_bytes_at = max_bytes_at
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] in BODILESS_METHODS:
            await self._app(scope, receive, send)
            return
        try:
            max_bytes = self._max_bytes_at.get(scope["path"], self._max_bytes)
            body = await self._body(Headers(scope=scope), receive, max_bytes)
        except ProblemError as problem:
            await self._catalogue.response(problem, scope["path"])(scope, receive, send)
            return
        if body is None:  # the client went away before it had sent everything
            return
        await self._app(scope, _replay(body, receive), send)

    async def _body(self, headers: Headers, receive: Receive, max_bytes: int) -> bytes | None:
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > max_bytes:
                        raise _too_large(max_bytes)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            detail = f"The body did not arrive within {self._timeout_s:g} seconds."
            raise ProblemError("request-timeout", detail, headers=CLOSE) from None
        if size and not _says_json(headers.get("content-type", "")):
            raise ProblemError("unsupported-media-type", "The body's content type is not application/json.")
        return b"".join(chunks)


def _too_large(max_bytes: int) -> ProblemError:
    detail = f"The body may have at most {max_bytes} bytes."
    return ProblemError("content-too-large", detail, headers=CLOSE)


def _says_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed
