"""Bounds on what a client may cost: requests at once, the size of a body, and the time it may take."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.servicekit.conftest import client_of, create_app

JSON = {"Content-Type": "application/json"}


async def in_pieces(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def body_of(size: int) -> bytes:
    return b'{"size": 1' + b" " * (size - 11) + b"}"


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize(("size", "status"), [(1024, 200), (1025, 413)])
async def test_a_body_may_be_as_large_as_the_limit_and_not_a_byte_more(
    announced: bool, size: int, status: int
) -> None:
    body = body_of(size)
    async with client_of(create_app(max_body_bytes=1024)) as client:
        content: Any = body if announced else in_pieces([body[:1000], body[1000:]])
        reply = await client.post("/cups", content=content, headers=JSON)
    assert reply.status_code == status
    if status == 413:
        assert reply.headers["connection"] == "close"
        assert reply.json()["detail"] == "The body may have at most 1024 bytes."


async def test_what_comes_after_the_limit_is_not_read() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 1_000

    async with client_of(create_app(max_body_bytes=1024)) as client:
        assert (await client.post("/cups", content=endless(), headers=JSON)).status_code == 413
    assert read == 2


async def test_a_body_that_takes_too_long_is_408() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with client_of(create_app(body_timeout_s=0.01)) as client:
        reply = await client.post("/cups", content=slow(), headers=JSON)
    assert (reply.status_code, reply.headers["connection"]) == (408, "close")


async def test_a_client_that_leaves_before_its_body_is_there_reaches_no_route(app: FastAPI) -> None:
    sent: list[object] = []
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/cups",
        "raw_path": b"/cups",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "server": ("kettle.test", 80),
        "client": ("127.0.0.1", 1),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
    }

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: object) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent == []


@pytest.mark.parametrize("length", ["", "-1", "x", "\u00b2", "9" * 400])
async def test_an_odd_content_length_is_no_error_of_ours(length: str) -> None:
    async with client_of(create_app()) as client:
        headers = [(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))]
        reply = await client.post("/cups", content=in_pieces([b'{"size": 1}']), headers=headers)
    assert reply.status_code in (200, 413)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json;charset=utf-8", 200),
        ("application/vnd.cup+json", 200),
        ("text/json", 415),
        ("application/jsonx", 415),
        ("application/xml", 415),
        ("", 415),
    ],
)
async def test_a_body_has_to_be_json_by_its_content_type(
    client: httpx.AsyncClient, content_type: str, status: int
) -> None:
    reply = await client.post("/cups", content=b'{"size": 1}', headers={"Content-Type": content_type})
    assert reply.status_code == status


async def test_only_so_many_requests_are_worked_on_at_once() -> None:
    app = create_app(max_requests=3)
    gate = asyncio.Event()
    started = 0

    @app.get("/wait")
    async def wait() -> None:
        nonlocal started
        started += 1
        await gate.wait()

    async with client_of(app) as client:
        asked = [asyncio.create_task(client.get("/wait")) for _ in range(10)]
        done, running = await asyncio.wait(asked, timeout=0.2)
        assert (started, len(running)) == (3, 3)
        assert {task.result().status_code for task in done} == {503}
        assert {task.result().headers["retry-after"] for task in done} == {"1"}
        assert (await client.get("/healthz")).status_code == 200
        for task in list(running)[:1]:
            task.cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*running, return_exceptions=True)
        assert (await client.get("/wait")).status_code == 200
