"""A whole system in memory for the client commands: checkout and three services behind one fake transport.

It keeps keys, orders and effects as the real ones do, and fails on command, as the real ones might.
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import typer
from typer.testing import CliRunner, Result

from lab.client import Patience
from lab.errors import OneLineErrors
from lab.system import Service, System

SERVICES = (
    Service("checkout", "checkout", 0),
    Service("email", "email_svc", 1),
    Service("warehouse", "warehouse_svc", 2),
    Service("rewards", "rewards_svc", 3),
)
COMMAND_PATHS = {"email": "/emails", "warehouse": "/shipments", "rewards": "/balances"}
ACCEPTED_AT = "2026-11-22T09:00:00.000000Z"
EFFECT_AT = "2026-11-22T09:00:01.000000Z"
COMPLETED_AT = "2026-11-22T09:00:02.000000Z"
LATER = "2026-11-22T09:00:03.000000Z"
PROBLEM = {"type": "http://127.0.0.1/problems/checkout/validation-error", "title": "Not valid"}


@dataclass
class FakeTime:
    """A clock that only sleep moves."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        for _ in range(10):  # whatever was started before gets as far as it can without time passing
            await asyncio.sleep(0)
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, total_s: float) -> Patience:
        return Patience(total_s, clock=self.clock, sleep=self.sleep)


@dataclass
class FakeSystem:
    """Orders by id, effects by service. `trouble` strikes one request each; new orders are in progress for
    as many `looks`, with `pending` steps."""

    system: System
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    effects: dict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: {name: [] for name in COMMAND_PATHS}
    )
    trouble: list[Callable[[httpx.Request, Callable[[], httpx.Response]], httpx.Response]] = field(
        default_factory=list
    )
    refuse: Callable[[dict[str, Any]], bool] = lambda order: False
    before: Callable[[httpx.Request], None] = lambda request: None
    participants: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: int = 0
    pending: dict[str, dict[str, Any]] = field(default_factory=dict)
    page_size: int = 2
    keys: dict[str, str] = field(default_factory=dict)
    requests: list[httpx.Request] = field(default_factory=list)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self.transport)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.before(request)
        if self.trouble:
            return self.trouble.pop(0)(request, lambda: self._route(request))
        return self._route(request)

    def posts(self, path: str) -> list[httpx.Request]:
        return [sent for sent in self.requests if sent.method == "POST" and sent.url.path == path]

    def add(
        self,
        *,
        style: str = "orchestration",
        member: bool = True,
        status: str = "completed",
        **steps: dict[str, Any],
    ) -> str:
        """An order that is where it should be, with its effects; `steps` replace steps of that name."""
        order_id = f"order-{next(self.ids):04}"
        done = {"status": "succeeded", "attempts": 1, "finished_at": EFFECT_AT}
        skipped = {"status": "skipped", "attempts": 0, "reason": "the customer has not joined rewards"}
        all_steps = {"email": done, "warehouse": done, "rewards": done if member else skipped, **steps}
        self.orders[order_id] = {
            "order_id": order_id,
            "style": style,
            "status": status,
            "customer": {"name": "Ada", "email": "ada@example.com", "rewards_member": member},
            "currency": "GBP",
            "lines": [{"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999}],
            "ship_to": {"name": "Ada", "line1": "12 St James Sq", "city": "London", "country": "GB"},
            "total_minor": 3998,
            "accepted_at": ACCEPTED_AT,
            "completed_at": COMPLETED_AT if status == "completed" else None,
            "steps": all_steps,
        }
        for name, step in all_steps.items():
            if step["status"] == "succeeded" and name in self.effects:
                self.effects[name].append((order_id, EFFECT_AT))
        return order_id

    def lose(self, service: str, order_id: str) -> None:
        """The service forgets its effect."""
        self.effects[service] = [effect for effect in self.effects[service] if effect[0] != order_id]

    def _route(self, request: httpx.Request) -> httpx.Response:
        offset = (request.url.port or 0) - self.system.port_base
        service = next(service.name for service in SERVICES if service.port_offset == offset)
        path = unquote(request.url.raw_path.decode().partition("?")[0])
        if path == "/healthz":
            return httpx.Response(200, json={})
        if service == "checkout" and path == "/checkouts" and request.method == "POST":
            return self._accept(request)
        told = request.headers.get("Authorization")
        is_open = service == "checkout" and request.method == "GET" and path.startswith("/checkouts/")
        if not is_open and told != f"Bearer {self._token_for(service, request)}":
            return _problem(401, "No valid token")
        if service == "checkout" and path.startswith("/participants"):
            return self._participants(path)
        if service == "checkout":
            return self._checkout(request, path)
        if path == "/effects":
            shown = [{"order_id": order_id, "at": at} for order_id, at in self.effects[service]]
            return self._page(request, "effects", shown)
        if request.method == "GET":
            return self._record(service, path)
        assert (request.method, path) == ("POST", COMMAND_PATHS[service])
        return self._perform(service, json.loads(request.content))

    def _token_for(self, service: str, request: httpx.Request) -> str:
        tokens = self.system.tokens()
        return (
            tokens.conductor(service)
            if request.method == "POST" and service != "checkout"
            else tokens.operator
        )

    def _accept(self, request: httpx.Request) -> httpx.Response:
        key = request.headers["Idempotency-Key"]
        body = json.loads(request.content)
        if "customer" not in body:
            errors = [{"pointer": "#/customer", "detail": "Field required"}]
            return _problem(422, "Not valid", errors=errors)
        if key in self.keys:
            replayed = {"Idempotency-Replayed": "true"}
            return httpx.Response(201, json=self.orders[self.keys[key]], headers=replayed)
        style = request.url.params.get("style", "orchestration")
        order_id = self.add(style=style, member=body["customer"]["rewards_member"])
        self.orders[order_id]["steps"] |= self.pending
        self.keys[key] = order_id
        if self.looks:
            self.orders[order_id] |= {"status": "in_progress", "completed_at": None, "looks": self.looks}
            return httpx.Response(202, json=self.orders[order_id])
        return httpx.Response(201, json=self.orders[order_id])

    def _checkout(self, request: httpx.Request, path: str) -> httpx.Response:
        parts = path.split("/")[2:]
        if not parts:
            wanted = request.url.params.get("status")
            shown = [order for order in self.orders.values() if wanted in (None, order["status"])]
            return self._page(request, "checkouts", shown)
        if parts[0] not in self.orders:
            return _problem(404, "There is nothing here")
        order = self.orders[parts[0]]
        if len(parts) == 2:
            failed = [step for step in order["steps"].values() if step["status"] == "failed"]
            completed, retry = order["status"] == "completed", parts[1] == "retry"
            if order["status"] == "in_progress" or (completed and not (retry and failed)):
                return _problem(409, "The order's status does not allow this")
            for step in failed:
                step |= {"status": "pending"} if retry else {"reason": "abandoned"}
            if not completed:
                order["status"] = "in_progress" if retry else "needs_attention"
        elif "looks" in order:
            order["looks"] -= 1
            if not order["looks"]:
                del order["looks"]
                order |= {"status": "completed", "completed_at": COMPLETED_AT}
        return httpx.Response(200, json=order)

    def _participants(self, path: str) -> httpx.Response:
        if path == "/participants":
            return httpx.Response(200, json={"participants": list(self.participants.values())})
        participant = self.participants.get(path.split("/")[2])
        if participant is None:
            return _problem(404, "There is nothing here")
        participant["retired_at"] = participant["retired_at"] or LATER
        return httpx.Response(200, json=participant)

    def _perform(self, service: str, command: dict[str, Any]) -> httpx.Response:
        if self.refuse(command):
            return _problem(422, "The service will not")
        known = {order_id for order_id, _ in self.effects[service]}
        if command["order_id"] not in known:
            self.effects[service].append((command["order_id"], LATER))
        return httpx.Response(201, json={"order_id": command["order_id"]})

    def _record(self, service: str, path: str) -> httpx.Response:
        order_id = path.rpartition("/")[2]
        assert path == f"{COMMAND_PATHS[service]}/{order_id}"
        if order_id not in {known for known, _ in self.effects[service]}:
            return _problem(404, "There is nothing here")
        delivered = {"delivery": "sent", "delivered_at": LATER, "attempts": 2, "to": "ada@example.com"}
        prepared = {"state": "preparing", "prepared_at": EFFECT_AT, "changed_at": EFFECT_AT}
        return httpx.Response(200, json={"email": delivered, "warehouse": prepared}[service])

    def _page(self, request: httpx.Request, key: str, items: list[dict[str, Any]]) -> httpx.Response:
        start = int(request.url.params.get("cursor", "0"))
        end = start + self.page_size
        return httpx.Response(
            200, json={key: items[start:end], "next": str(end) if end < len(items) else None}
        )


def make_fake(folder: Path) -> FakeSystem:
    """A fake system whose data folder holds tokens and the port base that `--data` leads to."""
    tokens = {"operator": "op", "email": "to-email", "warehouse": "to-warehouse", "rewards": "to-rewards"}
    (folder / "tokens.json").write_text(json.dumps(tokens))
    return FakeSystem(System(folder, 8000, SERVICES))


def run_command(module: Any, fake: FakeSystem, *arguments: str, **options: Any) -> Result:
    """Run a `duet` command as a person would, against the fake."""
    app = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    module.register(app)
    located = ["--data", str(fake.system.data)]
    return CliRunner().invoke(app, [*arguments, *located], obj=fake.transport, **options)


def refused_connection(request: httpx.Request, _: Callable[[], httpx.Response]) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def lost_reply(request: httpx.Request, perform: Callable[[], httpx.Response]) -> httpx.Response:
    perform()
    raise httpx.RemoteProtocolError("cut short", request=request)


def timed_out(request: httpx.Request, perform: Callable[[], httpx.Response]) -> httpx.Response:
    perform()
    raise httpx.ReadTimeout("no answer", request=request)


def overloaded(_: httpx.Request, __: Callable[[], httpx.Response]) -> httpx.Response:
    return _problem(503, "Too much work", headers={"Retry-After": "7"})


def not_json(_: httpx.Request, __: Callable[[], httpx.Response]) -> httpx.Response:
    return httpx.Response(201, text='{"order_id": "half')


def _problem(
    status: int,
    title: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    body: dict[str, Any] = {**PROBLEM, "title": title, "status": status, "detail": f"{title}, in short."}
    if errors:
        body["errors"] = errors
    return httpx.Response(
        status, json=body, headers={"Content-Type": "application/problem+json", **(headers or {})}
    )
