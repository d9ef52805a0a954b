"""The warehouse service's routes: outcomes, roles, problems and metrics."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from servicekit.db import Database, StorageUnavailableError
from tests.warehouse_svc.conftest import CONDUCTOR, OPERATOR
from tests.warehouse_svc.ledger import SHIP_TO

COMMAND: dict[str, Any] = {
    "order_id": "o1",
    "lines": [{"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999}, {"sku": "PEN-7", "quantity": 1}],
    "ship_to": SHIP_TO,
    "something_newer": 1,
}


def ordering(order_id: str, sku: str, quantity: int = 1) -> dict[str, Any]:
    return COMMAND | {"order_id": order_id, "lines": [{"sku": sku, "quantity": quantity}]}


async def test_the_first_command_answers_201_and_a_repeat_200_with_the_same_outcome(
    client: httpx.AsyncClient,
) -> None:
    first = await client.post("/shipments", json=COMMAND, headers=CONDUCTOR)
    again = await client.post("/shipments", json=ordering("o1", "OTHER"), headers=CONDUCTOR)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json() == {
        "order_id": "o1",
        "shipment_id": first.json()["shipment_id"],
        "state": "preparing",
    }


async def test_a_backordered_shipment_is_a_success_and_is_filled_by_new_stock(
    client: httpx.AsyncClient,
) -> None:
    for status in (201, 200):
        reply = await client.post("/shipments", json=ordering("o1", "BOOK-1", 101), headers=CONDUCTOR)
        assert (reply.status_code, reply.json()["state"]) == (status, "backordered")
    for filled in (1, 0):
        put = await client.put("/stock/BOOK-1", json={"on_hand": 120}, headers=OPERATOR)
        assert put.status_code == 200
        assert put.json() == {
            "sku": "BOOK-1",
            "on_hand": 120,
            "allocated": 101,
            "available": 19,
            "filled": filled,
        }
    shipment = (await client.get("/shipments/o1", headers=OPERATOR)).json()
    assert shipment["state"] == "preparing"
    assert shipment["changed_at"] > shipment["prepared_at"]


async def test_the_operator_reads_what_was_sent_first_and_advances_it(client: httpx.AsyncClient) -> None:
    await client.post("/shipments", json=COMMAND, headers=CONDUCTOR)
    shipment = (await client.get("/shipments/o1", headers=OPERATOR)).json()
    assert shipment["lines"] == [{"sku": "BOOK-1", "quantity": 2}, {"sku": "PEN-7", "quantity": 1}]
    assert shipment["ship_to"] == SHIP_TO
    assert shipment["prepared_at"].endswith("Z")
    for to in ("packed", "packed", "shipped", "shipped", "delivered", "delivered"):
        reply = await client.post("/shipments/o1/advance", json={"to": to}, headers=OPERATOR)
        assert (reply.status_code, reply.json()["state"]) == (200, to)
    stock = (await client.get("/stock/BOOK-1", headers=OPERATOR)).json()
    assert stock == {"sku": "BOOK-1", "on_hand": 98, "allocated": 0, "available": 98}


async def test_effects_are_paged_in_the_order_of_their_recording(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.post("/shipments", json=ordering(f"o{number}", "BOOK-1"), headers=CONDUCTOR)
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        page = (await client.get(f"/effects?limit=2{cursor}", headers=OPERATOR)).json()
        seen += [effect["order_id"] for effect in page["effects"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == ["o0", "o1", "o2", "o3", "o4"]


async def test_a_sku_may_hold_any_characters_but_control_characters(client: httpx.AsyncClient) -> None:
    for number, sku in enumerate(("A/B", "../x", "50%", "ÄÖ 本", "?#")):
        command = ordering(f"o{number}", sku)
        assert (await client.post("/shipments", json=command, headers=CONDUCTOR)).status_code == 201
        reply = await client.get(f"/stock/{quote(sku, safe='')}", headers=OPERATOR)
        assert (reply.json()["sku"], reply.json()["allocated"]) == (sku, 1)
    for path in ("/stock/a%00b", "/shipments/a%00b", "/stock/" + "x" * 65):
        assert (await client.get(path, headers=OPERATOR)).status_code == 422


async def test_the_largest_order_that_checkout_accepts_is_accepted_here(client: httpx.AsyncClient) -> None:
    lines = [{"sku": chr(0x1F600 + n) * 64, "quantity": 10_000} for n in range(100)]
    ship_to = dict.fromkeys(SHIP_TO, "本" * 200) | {"country": "JP"}
    command = {"order_id": "x" * 64, "lines": lines, "ship_to": ship_to}
    for status in (201, 200):
        reply = await client.post("/shipments", json=command, headers=CONDUCTOR)
        assert reply.status_code == status
        assert len(reply.content) < 65_536
    least = {field: SHIP_TO[field] for field in ("name", "line1", "city", "country")}
    reply = await client.post("/shipments", json=COMMAND | {"ship_to": least}, headers=CONDUCTOR)
    assert reply.status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "role", "body"),
    [
        ("POST", "/shipments", "conductor", COMMAND),
        ("GET", "/shipments/o1", "operator", None),
        ("POST", "/shipments/o1/advance", "operator", {"to": "packed"}),
        ("GET", "/stock/BOOK-1", "operator", None),
        ("PUT", "/stock/BOOK-1", "operator", {"on_hand": 1}),
        ("GET", "/effects", "operator", None),
    ],
)
async def test_each_route_opens_to_its_own_role_alone(
    client: httpx.AsyncClient, method: str, path: str, role: str, body: dict[str, Any] | None
) -> None:
    sent: dict[str, Any] = {} if body is None else {"json": body}
    wrong = {"operator": CONDUCTOR, "conductor": OPERATOR}[role]
    stranger = {"Authorization": "Bearer not-a-token"}
    for headers, status, slug in (
        ({}, 401, "unauthorized"),
        (stranger, 401, "unauthorized"),
        (wrong, 403, "forbidden"),
    ):
        reply = await client.request(method, path, headers=headers, **sent)
        assert reply.status_code == status
        assert reply.json()["type"] == f"http://127.0.0.1:8002/problems/warehouse/{slug}"
    right = {"operator": OPERATOR, "conductor": CONDUCTOR}[role]
    assert (await client.request(method, path, headers=right, **sent)).status_code in (200, 201, 404)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"order_id": ""}, "#/order_id"),
        ({"order_id": "a\nb"}, "#/order_id"),
        ({"lines": []}, "#/lines"),
        ({"lines": COMMAND["lines"] * 51}, "#/lines"),
        ({"lines": [{"sku": "a\x00", "quantity": 1}]}, "#/lines/0/sku"),
        ({"lines": [{"sku": "x" * 65, "quantity": 1}]}, "#/lines/0/sku"),
        ({"lines": [{"sku": "a", "quantity": 0}]}, "#/lines/0/quantity"),
        ({"lines": [{"sku": "a", "quantity": 10_001}]}, "#/lines/0/quantity"),
        ({"lines": [{"sku": "a", "quantity": "1"}]}, "#/lines/0/quantity"),
        ({"lines": [{"sku": "a", "quantity": 2**63}]}, "#/lines/0/quantity"),
        ({"ship_to": SHIP_TO | {"country": "gb"}}, "#/ship_to/country"),
        ({"ship_to": SHIP_TO | {"city": "x" * 201}}, "#/ship_to/city"),
        ({"ship_to": SHIP_TO | {"line1": "a\rb"}}, "#/ship_to/line1"),
    ],
)
async def test_a_bad_field_is_named_by_its_pointer(
    client: httpx.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    reply = await client.post("/shipments", json=COMMAND | change, headers=CONDUCTOR)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in reply.json()["errors"]] == [pointer]


@pytest.mark.parametrize("on_hand", [-1, 1_000_000_001, 2**63, 1e300, "5", 1.5, True, None])
async def test_an_on_hand_quantity_out_of_range_is_refused(client: httpx.AsyncClient, on_hand: Any) -> None:
    reply = await client.put("/stock/BOOK-1", json={"on_hand": on_hand}, headers=OPERATOR)
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "#/on_hand")


async def test_a_whole_number_may_be_written_with_a_fraction_of_zero(client: httpx.AsyncClient) -> None:
    for status in (201, 200):
        command = COMMAND | {"lines": [{"sku": "BOOK-1", "quantity": 2.0}]}
        assert (await client.post("/shipments", json=command, headers=CONDUCTOR)).status_code == status
        reply = await client.put("/stock/BOOK-1", json={"on_hand": 5.0}, headers=OPERATOR)
        assert (reply.json()["on_hand"], reply.json()["allocated"]) == (5, 2)


async def test_each_rule_that_is_broken_has_a_problem_type_with_a_page(client: httpx.AsyncClient) -> None:
    await client.post("/shipments", json=COMMAND, headers=CONDUCTOR)
    refused = ordering("o2", "REFUSE-ME")
    for _ in range(2):
        replies = {
            "sku-refused": await client.post("/shipments", json=refused, headers=CONDUCTOR),
            "shipment-state": await client.post(
                "/shipments/o1/advance", json={"to": "delivered"}, headers=OPERATOR
            ),
            "stock-allocated": await client.put("/stock/BOOK-1", json={"on_hand": 1}, headers=OPERATOR),
            "not-found": await client.get("/shipments/o2", headers=OPERATOR),
        }
        statuses = [reply.status_code for reply in replies.values()]
        assert statuses == [422, 409, 409, 404]
        for slug, reply in replies.items():
            assert reply.json()["type"] == f"http://127.0.0.1:8002/problems/warehouse/{slug}"
            assert slug in (await client.get(f"/problems/warehouse/{slug}")).text
    afresh = await client.post("/shipments", json=ordering("o2", "BOOK-1"), headers=CONDUCTOR)
    assert afresh.status_code == 201


async def test_a_backordered_development_sku_is_neither_advanced_nor_stocked(
    client: httpx.AsyncClient,
) -> None:
    await client.post("/shipments", json=ordering("o1", "BACKORDER-ME"), headers=CONDUCTOR)
    advanced = await client.post("/shipments/o1/advance", json={"to": "packed"}, headers=OPERATOR)
    stocked = await client.put("/stock/BACKORDER-ME", json={"on_hand": 5}, headers=OPERATOR)
    assert (advanced.status_code, stocked.status_code) == (409, 422)
    assert (await client.get("/stock/BACKORDER-ME", headers=OPERATOR)).json()["available"] == 0


async def test_metrics_count_commands_by_outcome_and_shipments_by_state(client: httpx.AsyncClient) -> None:
    for command in (
        ordering("o1", "BOOK-1"),
        ordering("o1", "BOOK-1"),
        ordering("o2", "BACKORDER-ME"),
        ordering("o3", "REFUSE-ME"),
    ):
        await client.post("/shipments", json=command, headers=CONDUCTOR)
    lines = (await client.get("/metrics")).text.splitlines()
    for outcome in ("prepared", "repeated", "backordered", "refused"):
        assert f'shipment_commands_total{{outcome="{outcome}"}} 1.0' in lines
    assert 'shipments{state="preparing"} 1.0' in lines
    assert 'shipments{state="backordered"} 1.0' in lines
    assert 'shipments{state="shipped"} 0.0' in lines


async def test_trouble_with_the_database_is_503_and_leaves_the_other_metrics(
    client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> None:
        raise StorageUnavailableError("gone")

    await client.get("/metrics")
    with monkeypatch.context() as broken:
        for method in ("read", "write", "batch"):
            broken.setattr(database, method, unavailable)
        for reply in (
            await client.post("/shipments", json=COMMAND, headers=CONDUCTOR),
            await client.get("/shipments/o1", headers=OPERATOR),
            await client.put("/stock/BOOK-1", json={"on_hand": 1}, headers=OPERATOR),
        ):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
            assert reply.json()["type"].endswith("/warehouse/storage-unavailable")
        assert (await client.get("/readyz")).status_code == 503
        scraped = (await client.get("/metrics")).text
        assert "http_requests_total" in scraped
        assert "shipments{" not in scraped
    assert (await client.get("/readyz")).status_code == 200
    assert (await client.post("/shipments", json=COMMAND, headers=CONDUCTOR)).status_code == 201


async def test_the_document_describes_every_route_with_stable_operation_ids(
    client: httpx.AsyncClient,
) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {operation["operationId"] for path in paths.values() for operation in path.values()} == {
        "prepare_shipment",
        "prepare_shipments",
        "get_shipment",
        "advance_shipment",
        "get_stock",
        "set_stock",
        "list_effects",
    }
