"""The baselines are decent conductors: same calls, same checks, same answer; they only promise less."""

import json

import httpx
import pytest

from lab.baselines.naive_httpx import conduct_with
from lab.bench.orders import prepare_orders
from lab.bench.stub import Answers
from lab.bench.wire import (
    ReplyReader,
    Request,
)

SETTINGS = {
    f"NAIVE_{name}_{kind}": f"http://{name.lower()}" if kind == "URL" else f"token-{name.lower()}"
    for name in ("EMAIL", "WAREHOUSE", "REWARDS")
    for kind in ("URL", "TOKEN")
}


class FakeServices:
    """The three services as one handler: answers as the stubs do, but for the path that is told to fail."""

    def __init__(self, failing: str | None = None) -> None:
        self.answers = Answers()
        self.commands: dict[str, dict[str, object]] = {}
        self.tokens: set[str] = set()
        self._failing = failing

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.commands[f"{request.url.host}{path}"] = json.loads(request.content)
        self.tokens.add(request.headers["authorization"])
        if path == self._failing:
            return httpx.Response(503, json={"title": "busy"})
        [reply] = ReplyReader().feed(self.answers.answer(Request(b"POST", path.encode(), request.content)))
        return httpx.Response(reply.status, content=reply.body)


async def submit(services: FakeServices, body: bytes) -> httpx.Response:
    app = conduct_with(httpx.AsyncClient(transport=httpx.MockTransport(services)), SETTINGS)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://checkout") as client:
        return await client.post("/checkouts", content=body, headers={"content-type": "application/json"})


def prepared(member: bool) -> bytes:
    return next(order.body for order in prepare_orders(seed=1) if order.member is member)


async def test_a_baseline_calls_all_three_services_for_a_member_and_aggregates_their_replies() -> None:
    services, body = FakeServices(), prepared(member=True)
    response = await submit(services, body)
    told, order = response.json(), json.loads(body)
    total = sum(line["quantity"] * line["unit_price_minor"] for line in order["lines"])
    assert response.status_code == 201
    assert (told["status"], told["style"], told["total_minor"]) == ("completed", "orchestration", total)
    assert {name: step["status"] for name, step in told["steps"].items()} == {
        "email": "succeeded",
        "warehouse": "succeeded",
        "rewards": "succeeded",
    }
    assert told["steps"]["rewards"]["result"]["points"] == total // 100
    assert {key: told[key] for key in order} == order
    assert set(services.commands) == {"email/emails", "warehouse/shipments", "rewards/balances"}
    assert {command["order_id"] for command in services.commands.values()} == {told["order_id"]}
    assert services.tokens == {"Bearer token-email", "Bearer token-warehouse", "Bearer token-rewards"}


async def test_a_baseline_leaves_the_rewards_service_alone_for_others() -> None:
    services = FakeServices()
    told = (await submit(services, prepared(member=False))).json()
    assert told["status"] == "completed"
    assert told["steps"]["rewards"]["status"] == "skipped"
    assert set(services.commands) == {"email/emails", "warehouse/shipments"}


async def test_a_baseline_says_which_call_failed_and_does_not_repeat_it() -> None:
    told = (await submit(FakeServices(failing="/shipments"), prepared(member=True))).json()
    assert told["status"] == "needs_attention"
    assert told["completed_at"] is None
    assert told["steps"]["warehouse"]["status"] == "failed"
    assert told["steps"]["warehouse"]["attempts"] == 1
    assert told["steps"]["email"]["status"] == "succeeded"


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"lines": []},
        {"currency": "pounds"},
        {"customer": {"name": "Ada", "email": "nobody", "rewards_member": True}},
    ],
)
async def test_a_baseline_checks_the_order_before_it_calls_anybody(change: dict[str, object]) -> None:
    services = FakeServices()
    response = await submit(services, json.dumps({**json.loads(prepared(member=True)), **change}).encode())
    assert response.status_code == 422
    assert not services.commands
