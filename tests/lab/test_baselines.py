"""The baselines are decent conductors: same calls, same checks, same answer; they only promise less."""

import json
from pathlib import Path

import aiohttp
import httpx
import pytest

from lab.baselines.book import read_book
from lab.baselines.conductor import conduct_with
from tests.lab.naive import SETTINGS, FakeServices, prepared, submit


async def place(services: FakeServices, body: bytes) -> httpx.Response:
    return await submit(conduct_with(services.client(), SETTINGS, "NAIVE"), body)


async def test_a_baseline_calls_all_three_services_for_a_member_and_aggregates_their_replies() -> None:
    services, body = FakeServices(), prepared(member=True)
    response = await place(services, body)
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
    told = (await place(services, prepared(member=False))).json()
    assert told["status"] == "completed"
    assert told["steps"]["rewards"]["status"] == "skipped"
    assert set(services.commands) == {"email/emails", "warehouse/shipments"}


async def test_a_baseline_tells_of_a_failed_call_by_a_502_though_the_others_had_their_effect() -> None:
    services = FakeServices(failing="/shipments")
    response = await place(services, prepared(member=True))
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith("/call-failed")
    assert services.calls == 3
    assert {path: len(ids) for path, ids in services.effects.items()} == {
        "/emails": 1,
        "/shipments": 0,
        "/balances": 1,
    }


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), aiohttp.ClientPayloadError("cut"), ConnectionResetError()]
)
async def test_a_baseline_takes_whatever_breaks_a_call_for_a_failed_one(error: Exception) -> None:
    async def broken(_: httpx.Request) -> httpx.Response:
        raise error

    client = httpx.AsyncClient(transport=httpx.MockTransport(broken))
    assert (await submit(conduct_with(client, SETTINGS, "NAIVE"), prepared(member=True))).status_code == 502


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
    response = await place(services, json.dumps({**json.loads(prepared(member=True)), **change}).encode())
    assert response.status_code == 422
    assert not services.commands


async def test_a_baseline_makes_another_order_of_a_repeat_under_the_same_key(tmp_path: Path) -> None:
    services, file = FakeServices(failing="/shipments"), tmp_path / "book"
    app = conduct_with(services.client(), {**SETTINGS, "NAIVE_BOOK": str(file)}, "NAIVE")
    assert (await submit(app, prepared(member=True), "a key")).status_code == 502
    services.failing = None
    assert (await submit(app, prepared(member=True), "a key")).status_code == 201
    await submit(app, prepared(member=True))
    first, second, _ = services.effects["/emails"]
    assert first != second
    assert services.effects["/shipments"][0] == second
    assert read_book(file) == {"a key": [first, second]}
    assert len(file.read_text().splitlines()) == 3


def test_the_book_reads_whole_lines_with_a_key_only_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    assert read_book(tmp_path / "none") == {}
    file = tmp_path / "book"
    file.write_text("one a b\ntwo \nthree a b\nfour c\nfive torn")
    assert read_book(file) == {"a b": ["one", "three"], "c": ["four"]}
