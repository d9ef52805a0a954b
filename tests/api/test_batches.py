"""The batch routes of the three services: each item is answered as it would be alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servicekit.commands import MAX_BYTES, MAX_ITEMS
from tests.api.apps import CONDUCTOR, OPERATOR, bearer, open_app

PATHS = {"email": "/emails", "warehouse": "/shipments", "rewards": "/balances"}
COMMAND: dict[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com"},
    "currency": "GBP",
    "total_minor": 4348,
    "lines": [{"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 2174}],
    "ship_to": {"name": "Ada Lovelace", "line1": "12 St James Sq", "city": "London", "country": "GB"},
}


def command(order_id: str, **more: Any) -> dict[str, Any]:
    return {**COMMAND, "order_id": order_id, **more}


@pytest.fixture(params=list(PATHS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def client(name: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with open_app(name, tmp_path) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{name}.test", headers=bearer(CONDUCTOR)
        ) as client:
            yield client


async def told(client: httpx.AsyncClient, name: str, *items: Any) -> list[dict[str, Any]]:
    answer = await client.post(f"{PATHS[name]}/batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_item_is_answered_as_it_would_be_alone_in_order(
    client: httpx.AsyncClient, name: str
) -> None:
    alone = await client.post(PATHS[name], json=command("o-1"))
    assert alone.status_code == 201
    first, repeated = await told(client, name, command("o-2"), command("o-1"))
    assert (first["status"], first["body"]["order_id"]) == (201, "o-2")
    assert first["body"].keys() == alone.json().keys()
    assert (repeated["status"], repeated["body"]) == (200, alone.json())
    again = await told(client, name, command("o-2"), command("o-3"))
    assert [each["status"] for each in again] == [200, 201]


async def test_one_that_is_not_valid_fails_no_neighbour(client: httpx.AsyncClient, name: str) -> None:
    items = [command("o-1"), {"order_id": "o-2"}, "hello", command("o-3")]
    results = await told(client, name, *items)
    assert [each["status"] for each in results] == [201, 422, 422, 201]
    problem = results[1]["problem"]
    alone = (await client.post(PATHS[name], json={"order_id": "o-2"})).json()
    assert problem == alone


async def test_one_that_is_refused_fails_no_neighbour(client: httpx.AsyncClient, name: str) -> None:
    bad = {
        "email": {"total_minor": 10**17},
        "warehouse": {"lines": [{"sku": "REFUSE-ME", "quantity": 1}]},
        "rewards": {"total_minor": 10**17},
    }[name]
    results = await told(client, name, command("o-1"), command("o-2", **bad), command("o-3"))
    assert [results[0]["status"], results[2]["status"]] == [201, 201]
    assert results[1]["status"] == 422


async def test_the_same_order_twice_in_a_batch_has_one_effect(client: httpx.AsyncClient, name: str) -> None:
    first, second = await told(client, name, command("o-1"), command("o-1"))
    assert {first["status"], second["status"]} <= {200, 201}
    assert first["body"] == second["body"]
    (effect,) = (await client.get("/effects", headers=bearer(OPERATOR))).json()["effects"]
    assert effect["order_id"] == "o-1"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ({"items": []}, 422),
        ({"items": [{}] * (MAX_ITEMS + 1)}, 422),
        ({}, 422),
        ([], 422),
    ],
    ids=["none", "too many", "no items", "a list"],
)
async def test_what_is_no_batch_is_refused_as_a_whole(
    client: httpx.AsyncClient, name: str, content: Any, status: int
) -> None:
    answer = await client.post(f"{PATHS[name]}/batch", json=content)
    assert (answer.status_code, answer.json()["status"]) == (status, status)


async def test_a_batch_may_be_larger_than_a_command_but_no_larger_than_a_mebibyte(
    client: httpx.AsyncClient, name: str
) -> None:
    large = [command(f"o-{number}", note="x" * 50_000) for number in range(10)]
    assert [each["status"] for each in await told(client, name, *large)] == [201] * 10
    too_large = {"items": [command("o-1", note="x" * MAX_BYTES)]}
    assert (await client.post(f"{PATHS[name]}/batch", json=too_large)).status_code == 413


async def test_the_route_is_the_conductors_alone(client: httpx.AsyncClient, name: str) -> None:
    for headers, status in (({"Authorization": ""}, 401), (bearer(OPERATOR), 403)):
        answer = await client.post(f"{PATHS[name]}/batch", json={"items": [command("o-1")]}, headers=headers)
        assert answer.status_code == status


def test_the_conductor_sends_no_more_than_the_services_take() -> None:
    from checkout import clients

    assert clients.MAX_BATCH <= MAX_ITEMS
    assert clients.MAX_BATCH_BYTES < MAX_BYTES
    assert clients.MAX_BATCH_REPLY_BYTES >= MAX_BYTES
