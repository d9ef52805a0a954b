"""The checkout service without a process: both styles and the journal are real, all around them is fake.

A fake service does what a real one promises (one effect for each order id, the stored outcome on a repeat),
unless its script says otherwise for the next calls. The fake participants are in `dancers`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

import checkout
from checkout.__main__ import authenticator, check_ready, resumer_for
from checkout.app import create_app
from checkout.broker import Broker
from checkout.choreography import Choreography
from checkout.clients import ServiceClient
from checkout.deps import Deps
from checkout.errors import catalogue
from checkout.journal import Journal
from checkout.metrics import CallMetrics, ChoreographyMetrics, OrderMetrics
from checkout.orchestration import Orchestration
from checkout.participants import Participants
from checkout.passes import Passes
from checkout.schemas import EXAMPLE_REQUEST
from checkout.settings import Settings
from checkout.timeline import Timeline
from checkout.watching import Watchers
from servicekit.boot import in_background
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import current_version, migrate, newest_version
from servicekit.web import Health
from tests.checkout.dancers import Dancer
from tests.support.fake_bus import FakeBroker, FakeBus

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
    """One service: its effects by order id, every command that reached it, and what it does next.

    With `batches` it takes several in one request, and answers each as it would alone; `sizes` are those.
    """

    name: str
    effects: dict[str, int] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    script: deque[Answer] = field(default_factory=deque)
    always: Answer | None = None
    batches: bool = True
    sizes: list[int] = field(default_factory=list)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/batch"):
            return await self._handle_batch(request) if self.batches else httpx.Response(404)
        self.calls.append(orjson.loads(request.content))
        answer = self.script.popleft() if self.script else self.always
        return await answer(self, request) if answer else self.perform(request)

    async def _handle_batch(self, request: httpx.Request) -> httpx.Response:
        commands = orjson.loads(request.content)["items"]
        self.sizes.append(len(commands))
        results = []
        for command in commands:
            alone = httpx.Request(
                "POST", str(request.url).removesuffix("/batch"), content=orjson.dumps(command)
            )
            told = await self.handle(alone)
            content = {"problem" if told.is_error else "body": told.json()} if told.content else {}
            results.append({"status": told.status_code, **content})
        return httpx.Response(200, json={"results": results})

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
    choreography: Choreography
    participants: Participants
    broker: FakeBroker
    dancers: dict[str, Dancer]
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
        return await self.until_seen(order_id, lambda seen: seen["status"] == status)

    async def until_error(self, order_id: str, name: str, slug: str) -> dict[str, Any]:
        """The order, once this step's last error is this one."""
        return await self.until_seen(order_id, lambda seen: seen["steps"][name].get("last_error") == slug)

    async def until_step(self, order_id: str, name: str, status: str) -> dict[str, Any]:
        """The order, once this step has this status."""
        return await self.until_seen(order_id, lambda seen: seen["steps"][name]["status"] == status)

    async def until_seen(self, order_id: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The order, once it looks right."""
        async with asyncio.timeout(PATIENCE_S):
            while not right(seen := await self.read(order_id)):  # noqa: ASYNC110 - as a client that polls
                await asyncio.sleep(POLL_S)
        return seen


async def eventually(right: Callable[[], object]) -> None:
    """Let everybody else go on until this is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not right():  # noqa: ASYNC110 - the fakes' plain lists tell nobody of their changes
            await asyncio.sleep(POLL_S)


def no_pass_runs() -> bool:
    """Whether every pass has ended, not only done its part."""
    return not any(task.get_name().startswith("pass-") for task in asyncio.all_tasks())


def settings_for(database_url: str, **given: Any) -> Settings:
    """Settings with short pauses; waits by default until the fakes have answered."""
    quick: dict[str, Any] = {
        "call_backoff_s": 0.001,
        "resume_min_s": 0.01,
        "resume_poll_s": 0.01,
        "default_wait_s": 5.0,
        "broker_poll_s": 0.02,
        "nats_url": "nats://127.0.0.1:1",
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
    broker: FakeBroker | None = None,
    dancing: bool = True,
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
        journal = Journal(opened, watchers, delay_s=settings.outcome_delay_s)
        stack.push_async_callback(journal.aclose)
        passes = Passes(journal, settings, order_metrics)
        call_metrics = CallMetrics(metrics.registry)
        clients = {}
        for name, fake in fakes.items():
            url, token = str(getattr(settings, f"{name}_url")), f"{name}-token-0123456"
            transport = httpx.MockTransport(fake.handle)
            clients[name] = ServiceClient(name, url, token, transport, settings, call_metrics)
        orchestration = Orchestration(journal, passes, clients, settings.lease_s)
        fake_broker = broker or FakeBroker()
        bus: Any = FakeBus(fake_broker)
        participants = Participants(opened, journal)
        await participants.load()
        conn = Broker(bus, settings, participants.observe)
        timeline = settings.timeline == "on"
        choreography = Choreography(journal, passes, conn, participants, settings.lease_s, timeline)
        stack.push_async_callback(passes.aclose, 0.0)
        alone = opened.dialect == "sqlite"
        resumer = resumer_for(journal, passes, settings, orchestration, choreography, alone=alone)
        if resuming:
            await in_background(stack, resumer.run())
        choreography_metrics = ChoreographyMetrics(metrics.registry, conn.failing_s)
        await in_background(stack, conn.run())
        if timeline:
            await in_background(stack, Timeline(bus, journal, choreography_metrics).run())
        dancers = {name: Dancer(name, result, FakeBus(fake_broker)) for name, result in RESULTS.items()}
        for dancer in dancers.values():
            stack.push_async_callback(dancer.stop)
            if dancing:
                dancer.start()
        expected = settings.participants_expected()
        health = Health(check=lambda: check_ready(opened, participants, expected), on_drain=[watchers.close])
        metrics.refreshers.append(partial(order_metrics.refresh, journal.census))
        app = create_app(
            Deps(
                journal=journal,
                watchers=watchers,
                styles={"orchestration": orchestration, "choreography": choreography},
                participants=participants,
                kick_resumer=resumer.kick,
                emit=conn.emit,
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
            app=app,
            client=client,
            services=fakes,
            database=opened,
            journal=journal,
            watchers=watchers,
            passes=passes,
            orchestration=orchestration,
            choreography=choreography,
            participants=participants,
            broker=fake_broker,
            dancers=dancers,
            health=health,
            settings=settings,
            stack=stack,
        )
