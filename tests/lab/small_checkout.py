"""A small implementation of the checkout API, as a team might write one, with faults on command.

One process, everything in memory, its three services behind the same port. Without flaws it conforms; each
flaw is one that real implementations have.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from checkout.preferences import parse_preferences
from checkout.schemas import CheckoutRequest
from lab.bench.orders import Origin
from lab.ledger import OWED_BY_MEMBERS
from lab.targets import EffectsAt, Target

SERVICES = ("email", "warehouse", "rewards")
WORK_S = 0.01
DEFAULT_WAIT_S = 2.0
RACE_S = 0.005


@dataclass
class SmallCheckout:
    """Its orders, keys and effects; `styles` are those that it serves, `flaws` what is wrong with it."""

    flaws: frozenset[str] = frozenset()
    styles: tuple[str, ...] = ("orchestration", "choreography")
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    effects: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: {name: [] for name in SERVICES})
    done: dict[str, asyncio.Event] = field(default_factory=dict)
    work: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/checkouts", self._place, methods=["POST"]),
            Route("/checkouts/{order_id}", self._read),
            Route("/problems/{slug}", lambda request: PlainTextResponse("what to do")),
            Route("/{service}/effects", self._effects),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: self._refuse})

    async def _place(self, request: Request) -> Response:
        content = await request.body()
        if request.headers.get("content-type") != "application/json":
            raise HTTPException(415)
        if len(content) > 64 * 1024:
            raise HTTPException(413)
        key = request.headers.get("idempotency-key", "").strip('"') or None
        if "idempotency-key" in request.headers and (
            key is None or (len(key) > 255 and "long-keys" not in self.flaws)
        ):
            raise HTTPException(400)
        style = request.query_params.get("style")
        if "one-style" in self.flaws:
            style = self.styles[0]
        if style and style not in self.styles:
            raise HTTPException(422, [{"parameter": "style"}])  # type: ignore[arg-type]  # our own handler's
        try:
            sent = json.loads(content)
        except ValueError as error:
            raise HTTPException(400) from error
        print_ = json.dumps([sent, style], sort_keys="spaced" not in self.flaws)
        known = None if key is None or "forgets-keys" in self.flaws else self.keys.get(key)
        if known and known[0] != print_:
            raise HTTPException(422, "reused")
        if known is None:
            if "racing" in self.flaws:
                await asyncio.sleep(RACE_S)
            if key and "binds-refused" in self.flaws:
                self.keys[key] = (print_, "")
            order_id = self._accept(sent, style or self.styles[0])
            if key:
                self.keys[key] = (print_, order_id)
        else:
            order_id = known[1]
        return await self._answer(request, order_id, replayed=known is not None)

    def _accept(self, sent: Any, style: str) -> str:
        try:
            order = CheckoutRequest.model_validate(sent).to_order("", style, "", datetime.now(UTC))
        except ValidationError as error:
            found = [{"pointer": "#/" + "/".join(map(str, each["loc"]))} for each in error.errors()]
            raise HTTPException(422, found) from error  # type: ignore[arg-type]  # our own handler's
        order_id = str(uuid.uuid4())
        self.orders[order_id] = {
            "order_id": order_id,
            "style": style,
            "status": "in_progress",
            **{name: getattr(order, name) for name in ("customer", "currency", "lines", "ship_to")},
            "total_minor": order.total_minor + ("wrong-total" in self.flaws),
            "accepted_at": _now(),
            "completed_at": None,
            "steps": {name: {"status": "pending", "attempts": 0} for name in SERVICES},
        }
        self.done[order_id] = asyncio.Event()
        task = asyncio.create_task(self._perform(order_id))
        self.work.add(task)
        task.add_done_callback(self.work.discard)
        return order_id

    async def _perform(self, order_id: str) -> None:
        await asyncio.sleep(WORK_S)
        order = self.orders[order_id]
        number = len(self.effects["email"])
        for name in SERVICES:
            if name in OWED_BY_MEMBERS and not order["customer"]["rewards_member"]:
                order["steps"][name] = {"status": "skipped", "attempts": 0, "reason": "has not joined"}
                continue
            times = 2 if "acts-twice" in self.flaws and number % 10 == 0 else 1
            times = 0 if "loses" in self.flaws and number % 10 == 0 else times
            self.effects[name] += [(order_id, _now())] * times
            order["steps"][name] = {"status": "succeeded", "attempts": 1}
        if "orphans" in self.flaws and number == 0:
            self.effects["email"].append(("nobody-was-told", _now()))
        order |= {"status": "completed", "completed_at": _now()}
        self.done[order_id].set()

    async def _read(self, request: Request) -> Response:
        order_id = request.path_params["order_id"]
        if order_id not in self.orders:
            raise HTTPException(404)
        return await self._answer(request, order_id, reading=True)

    async def _answer(
        self, request: Request, order_id: str, *, replayed: bool = False, reading: bool = False
    ) -> Response:
        preferred = parse_preferences(request.headers.getlist("prefer"))
        ignores = "ignores-prefer" in self.flaws
        wait_s = DEFAULT_WAIT_S if ignores else preferred.wait_or(0.0 if reading else DEFAULT_WAIT_S)
        if "hurries" in self.flaws and preferred.wait_s is not None:
            wait_s = 0.0
        final = await self._final(order_id, wait_s)
        headers = {} if reading else {"Location": f"/checkouts/{order_id}"}
        if "absolute" in self.flaws:
            headers = {name: f"{request.base_url}{path[1:]}" for name, path in headers.items()}
        if not final and "no-retry-after" not in self.flaws:
            headers["Retry-After"] = "1"
        if (applied := preferred.applied(answered_early=not final and not reading)) and not ignores:
            headers["Preference-Applied"] = applied
        if replayed and "silent" not in self.flaws:
            headers["Idempotency-Replayed"] = "true"
        return JSONResponse(self.orders[order_id], 200 if reading else 201 if final else 202, headers)

    async def _final(self, order_id: str, wait_s: float) -> bool:
        done = self.done[order_id]
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), wait_s)
        return done.is_set()

    async def _effects(self, request: Request) -> Response:
        told = [
            {"order_id": order_id, "at": at} for order_id, at in self.effects[request.path_params["service"]]
        ]
        return JSONResponse({"effects": told, "next": None})

    async def _refuse(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if "text-errors" in self.flaws:
            return PlainTextResponse("no", error.status_code)
        detail: Any = error.detail
        slug = "idempotency-key-reused" if detail == "reused" else "problem"
        base = "/" if "relative-type" in self.flaws else request.base_url
        body = {"type": f"{base}problems/{slug}", "title": "No", "status": error.status_code}
        if isinstance(detail, list) and "no-pointers" not in self.flaws:
            body["errors"] = detail
        return JSONResponse(body, error.status_code, error.headers, "application/problem+json")


@asynccontextmanager
async def serving(small: SmallCheckout) -> AsyncIterator[Target]:
    """Serve it on a free port of loopback; the target that it is."""
    async with serving_app(small.app) as port:
        effects = {
            name: EffectsAt(f"http://127.0.0.1:{port}/{name}/effects", "", name in OWED_BY_MEMBERS)
            for name in SERVICES
        }
        yield Target("small", Origin("127.0.0.1", port), "", "", effects)


@asynccontextmanager
async def serving_app(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application on a free port of loopback, which is given; nothing is left behind."""
    config = uvicorn.Config(app, "127.0.0.1", 0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(10):
            while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
                await asyncio.sleep(0.005)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield port
    finally:
        server.should_exit = True
        await running


def _now() -> str:
    return datetime.now(UTC).isoformat()
