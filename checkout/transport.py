"""One request to a service and its whole reply, within one deadline and bounded in size.

It speaks through a bare httpx transport, which knows no redirects, no cookies and no proxies. What a reply
means is decided in `checkout.replies`.
"""

import asyncio
from collections.abc import Mapping
from typing import Literal

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from checkout.replies import TroubleError

# Well below the services' own keep-alive: a connection is never reused while it is being closed.
KEEP_ALIVE_S = 15.0
# Nobody listens where the service should be: it is down, however soon it is back.
UNREACHABLE = "unreachable"


class Exchanger:
    """Posts JSON to one service, with its token."""

    def __init__(self, base_url: str, token: str, transport: httpx.AsyncBaseTransport) -> None:
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

    async def post(
        self, path: str, content: bytes, timeout_s: float, max_bytes: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """The status, headers (by lower-cased name) and body of the reply. Raises TroubleError."""
        url = self._urls.get(path) or self._urls.setdefault(path, httpx.URL(self._base_url + path))
        request = httpx.Request("POST", url, headers=self._headers, content=content)
        try:
            async with asyncio.timeout(timeout_s):  # httpx's own timeouts are per operation
                response = await self._transport.handle_async_request(request)
                try:
                    headers = {
                        key.decode("latin-1").lower(): value.decode("latin-1")
                        for key, value in response.headers.raw
                    }
                    return response.status_code, headers, await _read(response, headers, max_bytes)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TroubleError("timeout") from None
        except (httpx.TransportError, aiohttp.ClientError, OSError) as exc:
            raise TroubleError(_transport_slug(exc)) from exc


async def _read(response: httpx.Response, headers: Mapping[str, str], max_bytes: int) -> bytes:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise TroubleError("reply-compressed")
    assert isinstance(response.stream, httpx.AsyncByteStream)
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.stream:
        size += len(chunk)
        if size > max_bytes:
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
