"""The rewards service's routes: outcomes, roles and problems."""

import httpx
import pytest

from tests.rewards_svc.conftest import CONDUCTOR, OPERATOR

COMMAND = {
    "order_id": "o1",
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
    "currency": "GBP",
    "total_minor": 4348,
    "something_newer": 1,
}


async def test_the_first_command_answers_201_and_a_repeat_200_with_the_same_outcome(
    client: httpx.AsyncClient,
) -> None:
    first = await client.post("/balances", json=COMMAND, headers=CONDUCTOR)
    again = await client.post("/balances", json={**COMMAND, "total_minor": 1}, headers=CONDUCTOR)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["points"] == first.json()["balance"] == 43


async def test_the_operator_reads_balances_entries_and_effects(client: httpx.AsyncClient) -> None:
    balance_id = (await client.post("/balances", json=COMMAND, headers=CONDUCTOR)).json()["balance_id"]
    await client.post("/balances", json={**COMMAND, "order_id": "o2"}, headers=CONDUCTOR)
    found = await client.post("/balances/lookup", json={"email": "ADA@example.com"}, headers=OPERATOR)
    assert found.json()["balance_id"] == balance_id
    assert (await client.get(f"/balances/{balance_id}", headers=OPERATOR)).json()["points"] == 86
    page = (await client.get(f"/balances/{balance_id}/entries?limit=1", headers=OPERATOR)).json()
    rest = await client.get(f"/balances/{balance_id}/entries?cursor={page['next']}", headers=OPERATOR)
    assert [entry["order_id"] for entry in page["entries"] + rest.json()["entries"]] == ["o1", "o2"]
    effects = (await client.get("/effects", headers=OPERATOR)).json()
    assert [effect["order_id"] for effect in effects["effects"]] == ["o1", "o2"]


@pytest.mark.parametrize(
    ("method", "path", "role"),
    [
        ("POST", "/balances", "conductor"),
        ("POST", "/balances/lookup", "operator"),
        ("GET", "/balances/x", "operator"),
        ("GET", "/balances/x/entries", "operator"),
        ("GET", "/effects", "operator"),
    ],
)
async def test_each_route_opens_to_its_own_role_alone(
    client: httpx.AsyncClient, method: str, path: str, role: str
) -> None:
    body = {"json": COMMAND | {"email": "ada@example.com"}} if method == "POST" else {}
    wrong = {"operator": CONDUCTOR, "conductor": OPERATOR}[role]
    stranger = {"Authorization": "Bearer not-a-token"}
    assert (await client.request(method, path, **body)).status_code == 401
    assert (await client.request(method, path, headers=stranger, **body)).status_code == 401
    assert (await client.request(method, path, headers=wrong, **body)).status_code == 403
    right = {"operator": OPERATOR, "conductor": CONDUCTOR}[role]
    assert (await client.request(method, path, headers=right, **body)).status_code in (200, 201, 404)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"order_id": ""}, "#/order_id"),
        ({"order_id": "a\nb"}, "#/order_id"),
        ({"customer": {"email": "a@x.org, b@x.org"}}, "#/customer/email"),
        ({"customer": {"email": "Ada <ada@example.com>"}}, "#/customer/email"),
        ({"currency": "GBX"}, "#/currency"),
        ({"total_minor": -1}, "#/total_minor"),
        ({"total_minor": "1"}, "#/total_minor"),
        ({"total_minor": 10**15}, "#/total_minor"),
    ],
)
async def test_a_bad_field_is_named_by_its_pointer(
    client: httpx.AsyncClient, change: dict[str, object], pointer: str
) -> None:
    reply = await client.post("/balances", json=COMMAND | change, headers=CONDUCTOR)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]
