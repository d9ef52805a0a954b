"""An order's progress as server-sent events: ids, reconnection, heartbeats, the end, and a cap."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from fastapi import FastAPI

from checkout import event_stream
from tests.checkout.conftest import Opening
from tests.checkout.world import World, open_when, refuse


class Stream:
    """One request for events, read as they come (httpx's ASGI transport hands over whole bodies only)."""

    def __init__(self, app: FastAPI, path: str, **headers: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.gone = asyncio.Event()
        self._asked = False
        self._told = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "server": ("checkout", 80),
            "client": ("127.0.0.1", 1),
        }
        run: Callable[..., Awaitable[None]] = app
        self.task = asyncio.ensure_future(run(scope, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._told.set())

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")
        self._told.set()

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not seen() and not self.task.done():
                self._told.clear()
                await self._told.wait()
        assert seen()

    async def end(self) -> None:
        async with asyncio.timeout(5):
            await self.task

    async def leave(self) -> None:
        self.gone.set()
        await self.end()

    def events(self) -> list[dict[str, Any]]:
        """What has come so far: `event`, `id` and the parsed `data` of each event."""
        found = []
        for block in self.body.decode().split("\n\n"):
            fields = dict(
                line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != ":"
            )
            if "data" in fields:
                found.append({**fields, "data": orjson.loads(fields["data"])})
        return found


@pytest.fixture
async def gate() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def running(world: World, gate: asyncio.Event) -> str:
    """The path of an order whose confirmation waits for the gate; its other steps have succeeded."""
    world.services["email"].always = open_when(gate)
    placed = await world.place(headers={"Prefer": "respond-async"})
    path = placed.headers["location"]
    for name in ("warehouse", "rewards"):
        await world.until_step(placed.json()["order_id"], name, "succeeded")
    return path


@pytest.fixture
async def follow(world: World) -> AsyncIterator[Callable[..., Stream]]:
    """Open streams that are closed at the end."""
    opened: list[Stream] = []

    def open_stream(path: str, **headers: str) -> Stream:
        opened.append(Stream(world.app, path + "/events", **headers))
        return opened[-1]

    yield open_stream
    for stream in opened:
        await stream.leave()


Follow = Callable[..., Stream]


async def test_a_stream_starts_with_how_things_stand_and_ends_with_the_final_event(
    world: World, running: str, gate: asyncio.Event, follow: Follow
) -> None:
    stream = follow(running)
    await stream.until(lambda: len(stream.events()) == 1)
    assert stream.status == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.headers["cache-control"] == "no-store"
    assert b"retry: 1000" in stream.body
    gate.set()
    await stream.end()
    events = stream.events()
    assert [event["event"] for event in events] == ["progress"] * (len(events) - 1) + ["final"]
    ids = [int(event["id"]) for event in events]
    assert ids == sorted(set(ids))
    assert events[-1]["data"] == (await world.client.get(running)).json()
    assert events[-1]["data"]["status"] == "completed"


async def test_who_has_seen_the_final_event_gets_204(
    running: str, gate: asyncio.Event, follow: Follow, world: World
) -> None:
    gate.set()
    stream = follow(running)
    await stream.end()
    last = stream.events()[-1]["id"]
    again = await world.client.get(f"{running}/events", headers={"Last-Event-ID": last})
    assert (again.status_code, again.content) == (204, b"")


async def test_who_reconnects_gets_only_what_is_new(
    running: str, gate: asyncio.Event, follow: Follow
) -> None:
    first = follow(running)
    await first.until(lambda: bool(first.events()))
    await first.leave()
    second = follow(running, last_event_id=first.events()[-1]["id"])
    await second.until(lambda: b"retry" in second.body)
    gate.set()
    await second.end()
    assert [event["event"] for event in second.events()] == ["final"]


@pytest.mark.parametrize("last", ["nonsense", "-1", "1.5", "\u0665", ""])
async def test_a_last_event_id_that_is_none_of_ours_starts_afresh(
    world: World, last: str, gate: asyncio.Event
) -> None:
    path = (await world.place()).headers["location"]
    reply = await world.client.get(f"{path}/events", headers=[(b"Last-Event-ID", last.encode())])
    assert reply.status_code == 200
    assert "event: final" in reply.text


async def test_a_quiet_stream_beats(
    running: str, gate: asyncio.Event, follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.01)
    stream = follow(running)
    await stream.until(lambda: stream.body.count(b": still here") >= 3)
    assert len(stream.events()) == 1
    gate.set()
    await stream.end()


async def test_a_stream_of_an_order_that_needs_attention_ends_too(world: World) -> None:
    world.services["email"].always = refuse("no")
    path = (await world.place()).headers["location"]
    reply = await world.client.get(f"{path}/events")
    assert "event: final" in reply.text


async def test_streams_end_when_the_service_drains(running: str, follow: Follow, world: World) -> None:
    stream = follow(running)
    await stream.until(lambda: bool(stream.events()))
    world.health.drain()
    await stream.end()
    assert [event["event"] for event in stream.events()] == ["progress"]


async def test_whoever_leaves_is_watched_for_no_more(running: str, follow: Follow, world: World) -> None:
    stream = follow(running)
    await stream.until(lambda: bool(stream.events()))
    await stream.leave()
    assert len(world.watchers) == 0
    assert "event_streams 0.0" in (await world.client.get("/metrics")).text


async def test_there_are_only_so_many_streams_even_if_all_come_at_once(opening: Opening) -> None:
    async with opening(max_event_streams=3) as world:
        gate = asyncio.Event()
        world.services["email"].always = open_when(gate)
        path = (await world.place(headers={"Prefer": "respond-async"})).headers["location"]
        streams = [Stream(world.app, path + "/events") for _ in range(10)]
        for stream in streams:
            await stream.until(lambda each=stream: each.status != 0)  # type: ignore[misc]  # bound at once
        assert sorted(stream.status for stream in streams) == [200] * 3 + [503] * 7
        refused = next(stream for stream in streams if stream.status == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert orjson.loads(refused.body)["type"].endswith("/problems/checkout/too-many-streams")
        gate.set()
        for stream in streams:
            await stream.end()
        assert (await world.client.get(f"{path}/events")).status_code == 200
