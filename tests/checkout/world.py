"""The checkout service without a process: the real conductor and journal, and three fake services.

A fake service does what a real one promises (one effect for each order id, the stored outcome on a repeat),
unless its script says otherwise for the next calls.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

import checkout
from checkout.__main__ import authenticator
from checkout.app import create_app
from checkout.clients import ServiceClient
from checkout.deps import Deps
from checkout.errors import catalogue
from checkout.journal import Journal
from checkout.metrics import CallMetrics, OrderMetrics
from checkout.orchestration import Orchestration
from checkout.passes import Passes
from checkout.resume import Resumer
from checkout.schemas import EXAMPLE_REQUEST
from checkout.settings import Settings
from checkout.watching import Watchers
from servicekit.boot import can_read
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import current_version, migrate, newest_version
from servicekit.web import Health

PACKAGE = Path(checkout.__file__).parent
PATIENCE_S = 10
POLL_S = 0.002
OPERATOR = {"Authorization": "Bearer operator-token-0123"}
ORDER: Mapping[str, Any] = EXAMPLE_REQUEST
RESULTS: dict[str, dict[str, Any]] = {
    "email": {"delivery": "queued"},
    "warehouse": {"shipment_id": "s-1", "state": "preparing"},
    "rewards": {"balance_id": "b-1", "points": 43},
}

Answer = Callable[["FakeService", httpx.Request], Awaitable[httpx.Response]]


@dataclass
class FakeService:
    """One service: its effects by order id, every call that reached it, and what it does next."""

    name: str
    effects: dict[str, int] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)
    always: Answer | None = None

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(orjson.loads(request.content))
        answer = self.script.popleft() if self.script else self.always
        return await answer(self, request) if answer else self.perform(request)

    def perform(self, request: httpx.Request) -> httpx.Response:
        order_id = orjson.loads(request.content)["order_id"]
        repeated = order_id in self.effects
        if not repeated:
            self.effects[order_id] = 1
        return httpx.Response(
            200 if repeated else 201, json={"order_id": order_id, **RESULTS[self.name], "newer_field": 1}
        )


def answer(status: int, *, headers: Mapping[str, str] | None = None, **content: Any) -> Answer:
    """Answer this, without any effect."""

    async def act(service: FakeService, request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=headers, **content)

    return act


def refuse(slug: str, status: int = 422) -> Answer:
    """Say no with a problem type of the service's own."""

    async def act(service: FakeService, request: httpx.Request) -> httpx.Response:
        kind = f"http://{service.name}.test/problems/{service.name}/{slug}"
        headers = {"content-type": "application/problem+json"}
        return httpx.Response(status, headers=headers, content=orjson.dumps({"type": kind, "status": status}))

    return act


async def hang(service: FakeService, request: httpx.Request) -> httpx.Response:
    """Never answer."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def lose_reply(service: FakeService, request: httpx.Request) -> httpx.Response:
    """Do the work, and lose the reply."""
    service.perform(request)
    raise httpx.ReadError("connection lost", request=request)


def open_when(gate: asyncio.Event) -> Answer:
    """Wait for the gate, then do the work."""

    async def act(service: FakeService, request: httpx.Request) -> httpx.Response:
        await gate.wait()
        return service.perform(request)

    return act


@dataclass
class World:
    """One checkout replica, its fake services, and a client of its API."""

    app: FastAPI
    client: httpx.AsyncClient
    services: dict[str, FakeService]
    database: Database
    journal: Journal
    watchers: Watchers
    passes: Passes
    orchestration: Orchestration
    health: Health
    settings: Settings
    stack: AsyncExitStack

    async def place(self, order: Mapping[str, Any] = ORDER, **options: Any) -> httpx.Response:
        return await self.client.post("/checkouts", json=order, **options)

    async def read(self, order_id: str) -> dict[str, Any]:
        """The order as the operator sees it now."""
        seen: dict[str, Any] = (await self.client.get(f"/checkouts/{order_id}", headers=OPERATOR)).json()
        return seen

    async def until(self, order_id: str, status: str) -> dict[str, Any]:
        """The order, once it has this status."""
        return await self._until(order_id, lambda seen: seen["status"] == status)

    async def until_error(self, order_id: str, name: str, slug: str) -> dict[str, Any]:
        """The order, once this step's last error is this one."""
        return await self._until(order_id, lambda seen: seen["steps"][name].get("last_error") == slug)

    async def until_step(self, order_id: str, name: str, status: str) -> dict[str, Any]:
        """The order, once this step has this status."""
        return await self._until(order_id, lambda seen: seen["steps"][name]["status"] == status)

    async def _until(self, order_id: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            while not right(seen := await self.read(order_id)):  # noqa: ASYNC110 - as a client that polls
                await asyncio.sleep(POLL_S)
        return seen


async def eventually(right: Callable[[], object]) -> None:
    """Let everybody else go on until this is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not right():  # noqa: ASYNC110 - the fakes' plain lists tell nobody of their changes
            await asyncio.sleep(POLL_S)


def settings_for(database_url: str, **given: Any) -> Settings:
    """Settings with short pauses; waits by default until the fakes have answered."""
    quick: dict[str, Any] = {
        "call_backoff_s": 0.001,
        "resume_min_s": 0.01,
        "resume_poll_s": 0.01,
        "default_wait_s": 5.0,
    }
    urls = {f"{name}_url": f"http://{name}.test" for name in RESULTS}
    tokens = {f"{name}_token": f"{name}-token-0123456" for name in RESULTS}
    operator = {"operator_token": "operator-token-0123"}
    return Settings(**{"database_url": database_url, **urls, **tokens, **operator, **quick, **given})


@asynccontextmanager
async def open_world(
    database_url: str,
    *,
    services: dict[str, FakeService] | None = None,
    resuming: bool = True,
    database: Database | None = None,
    **given: Any,
) -> AsyncIterator[World]:
    """Wire one replica as its main does, but for the network."""
    settings = settings_for(database_url, **given)
    fakes = services or {name: FakeService(name) for name in RESULTS}
    async with AsyncExitStack() as stack:
        if database is None:
            if current_version(database_url) != newest_version(PACKAGE):
                migrate(PACKAGE, database_url)
            database = await stack.enter_async_context(Database(database_url, timeout_s=5))
        opened = database
        metrics = Metrics()
        order_metrics = OrderMetrics(metrics.registry)
        watchers = Watchers()
        journal = Journal(opened, watchers)
        stack.push_async_callback(journal.aclose)
        passes = Passes(journal, settings, order_metrics)
        call_metrics = CallMetrics(metrics.registry)
        clients = {}
        for name, fake in fakes.items():
            url, token = str(getattr(settings, f"{name}_url")), f"{name}-token-0123456"
            transport = httpx.MockTransport(fake.handle)
            clients[name] = ServiceClient(name, url, token, transport, settings, call_metrics)
        stack.push_async_callback(passes.aclose, 0.0)
        orchestration = Orchestration(journal, passes, clients, settings.lease_s)
        resumer = Resumer(
            journal,
            passes,
            {"orchestration": orchestration.perform},
            settings,
            is_failing=lambda: any(client.failing for client in clients.values()),
        )
        for service in clients.values():
            service.on_recovery = resumer.recovered
        if opened.dialect == "sqlite":
            await journal.make_all_due(leased_too=True)
        if resuming:
            await _in_background(stack, resumer.run())
        health = Health(check=lambda: opened.read(can_read), on_drain=[watchers.close])
        metrics.refreshers.append(partial(order_metrics.refresh, journal.census))
        app = create_app(
            Deps(
                journal=journal,
                watchers=watchers,
                styles={"orchestration": orchestration},
                kick_resumer=resumer.kick,
                auth=authenticator(settings),
                catalogue=catalogue(settings.base_url),
                metrics=metrics,
                order_metrics=order_metrics,
                health=health,
                settings=settings,
            )
        )
        asgi = httpx.ASGITransport(app, raise_app_exceptions=False)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=asgi, base_url="http://checkout")
        )
        yield World(
            app, client, fakes, opened, journal, watchers, passes, orchestration, health, settings, stack
        )


async def _in_background(stack: AsyncExitStack, work: Any) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)
