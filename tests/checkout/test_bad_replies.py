"""The conductor's client on real sockets of loopback, against servers that behave as badly as they can."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from httpx_aiohttp import AiohttpTransport
from prometheus_client import CollectorRegistry

from checkout.clients import ServiceClient, Told
from checkout.commands import ConfirmationReply
from checkout.metrics import CallMetrics
from checkout.orders import StepStatus
from checkout.transport import http_transport
from tests.checkout.world import eventually, settings_for

GOOD = {"order_id": "o1", "delivery": "queued"}

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
BODY = orjson.dumps(GOOD)
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


async def ignored(slug: str) -> None:
    """Trouble of which the test wants to know nothing."""


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[str]:
    """The URL of a server that treats each request so, and closes the connection after it."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await behave(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def write(data: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def cut_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD[:30])


def drip(first: bytes, piece: bytes) -> Behaviour:
    """Every piece comes well within any timeout of a single read; the whole never does."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        for _ in range(1_000):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return behave


async def tell_for_real(url: str, **given: Any) -> Told:
    settings = settings_for("sqlite:///unused.db", call_max_attempts=1, call_timeout_s=0.15, **given)
    async with http_transport(8, settings.http_pool) as transport:
        client = ServiceClient("email", url, "token", transport, settings, CallMetrics(CollectorRegistry()))
        return await client.tell("/emails", {"order_id": "o1"}, ConfirmationReply, ignored)


@pytest.mark.parametrize("pool", ["aiohttp", "httpx"])
async def test_a_whole_reply_over_a_socket_is_a_success(pool: str) -> None:
    async with serving(write(WHOLE)) as url:
        told = await tell_for_real(url, http_pool=pool)
    assert (told.attempts, told.error) == (1, None)


def test_the_pool_is_aiohttp_s_unless_measuring_asks_for_httpx_s_own() -> None:
    assert isinstance(http_transport(8), AiohttpTransport)
    own = http_transport(8, "httpx")
    assert isinstance(own, httpx.AsyncHTTPTransport)
    assert not isinstance(own, AiohttpTransport)
    assert (own._pool._max_connections, own._pool._max_keepalive_connections) == (8, 8)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behave", "slug"),
    [
        (say_nothing, "timeout"),
        (drip(HEAD + b"Content-Length: 5000\r\n\r\n", b" "), "timeout"),
        (drip(CHUNKED, b"1\r\n \r\n"), "timeout"),
        (drip(HEAD, b"X-More: y\r\n"), "timeout"),
        (write(WHOLE[:-5]), "reply-truncated"),
        (write(CHUNKED + b'5\r\n{"a"'), "reply-truncated"),
        (write(CHUNKED + b'5\r\n{"a":\r\n'), "reply-truncated"),
        (write(CHUNKED + b"zz\r\nnonsense\r\n"), "reply-not-http"),
        (write(b""), "connection-lost"),
        (cut_headers, "connection-lost"),
        (reset, "connection-lost"),
        (write(b"SSH-2.0-OpenSSH_9.2\r\n" * 3), "reply-not-http"),
        (write(b"\x00\x01\x02\xff" * 100), "reply-not-http"),
        (write(b"HTTP/1.1 banana\r\n\r\n"), "reply-not-http"),
        (write(HEAD + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n"), "reply-not-http"),
        (write(HEAD + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000), "reply-too-large"),
        (drip(CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n"), "reply-too-large"),
        (
            write(
                HEAD
                + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(BODY))
                + gzip.compress(BODY)
            ),
            "reply-compressed",
        ),
        (write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "reply-wrong-content-type"),
        (write(HEAD + b"Content-Length: 2\r\n\r\n{}"), "reply-wrong-shape"),
        (write(HEAD + b"Content-Length: 2\r\n\r\n{]"), "reply-malformed"),
        (
            write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            "misrouted-302",
        ),
    ],
)
async def test_a_reply_that_goes_wrong_is_named_and_never_a_success(behave: Behaviour, slug: str) -> None:
    async with serving(behave) as url, asyncio.timeout(5):
        told = await tell_for_real(url)
    assert told.reply is None
    assert told.error is not None
    assert told.error.slug == slug
    assert told.outcome("o1", "email").status is StepStatus.PENDING


async def test_nobody_listening_is_unreachable() -> None:
    async with serving(say_nothing) as url:
        pass
    told = await tell_for_real(url)
    assert told.error is not None
    assert told.error.slug == "unreachable"


async def test_cancelled_calls_leak_no_connection() -> None:
    """A pool that leaks a place for each cancelled call has none left after eight, for good."""
    open_ = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_
        open_ += 1
        try:
            await asyncio.sleep(0.02)
            writer.write(WHOLE)
            await writer.drain()
        finally:
            open_ -= 1

    settings = settings_for("sqlite:///unused.db", call_max_attempts=1, max_in_flight=24, batching="off")
    metrics = CallMetrics(CollectorRegistry())
    async with serving(slow) as url, http_transport(8) as transport, asyncio.timeout(20):
        client = ServiceClient("email", url, "token", transport, settings, metrics)

        def tell() -> Awaitable[Told]:
            return client.tell("/emails", {"order_id": "o1"}, ConfirmationReply, ignored)

        for n in range(10):
            calls = [asyncio.ensure_future(tell()) for _ in range(24)]
            await asyncio.sleep(0.003 * n)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        told = await asyncio.gather(*(tell() for _ in range(8)))
        assert [each.error for each in told] == [None] * 8
        await eventually(lambda: open_ == 0)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(write(WHOLE)) as url:
        assert (await tell_for_real(url)).error is None
