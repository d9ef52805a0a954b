"""Every route of every service with every role, and every problem type at its address."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from servicekit.problems import COMMON
from tests.api.apps import CALLER, CONDUCTOR, OPERATOR, bearer
from tests.api.conftest import NAMES, Served

# Which tokens open what. A route that is missing here fails the test: whoever adds one says whose it is.
CALLERS, OPERATORS, CONDUCTORS = {CALLER, OPERATOR}, {OPERATOR}, {CONDUCTOR}
ROLES: dict[str, dict[str, set[str]]] = {
    "checkout": {
        "POST /checkouts": CALLERS,
        "GET /checkouts/{order_id}": CALLERS,
        "GET /checkouts/{order_id}/events": CALLERS,
        "GET /checkouts": OPERATORS,
        "POST /checkouts/{order_id}/retry": OPERATORS,
        "POST /checkouts/{order_id}/abandon": OPERATORS,
        "GET /participants": OPERATORS,
        "POST /participants/{name}/retire": OPERATORS,
    },
    "email": {
        "POST /emails": CONDUCTORS,
        "POST /emails/batch": CONDUCTORS,
        "GET /emails/{order_id}": OPERATORS,
        "GET /effects": OPERATORS,
    },
    "warehouse": {
        "POST /shipments": CONDUCTORS,
        "POST /shipments/batch": CONDUCTORS,
        "GET /shipments/{order_id}": OPERATORS,
        "POST /shipments/{order_id}/advance": OPERATORS,
        "GET /stock/{sku}": OPERATORS,
        "PUT /stock/{sku}": OPERATORS,
        "GET /effects": OPERATORS,
    },
    "rewards": {
        "POST /balances": CONDUCTORS,
        "POST /balances/batch": CONDUCTORS,
        "POST /balances/lookup": OPERATORS,
        "GET /balances/{balance_id}": OPERATORS,
        "GET /balances/{balance_id}/entries": OPERATORS,
        "GET /effects": OPERATORS,
    },
}
KNOWN = {
    "checkout": {CALLER, OPERATOR},
    **{name: {CONDUCTOR, OPERATOR} for name in ("email", "warehouse", "rewards")},
}
OWN = {
    "checkout": {
        "idempotency-key-invalid",
        "idempotency-key-reused",
        "order-status",
        "broker-unavailable",
        "too-many-streams",
    },
    "email": set[str](),
    "warehouse": {"sku-refused", "shipment-state", "stock-allocated"},
    "rewards": set[str](),
}


@pytest.fixture(params=NAMES)
async def service(request: pytest.FixtureRequest, served: Served) -> Any:
    """Each service in turn: its name, and a client of it."""
    name: str = request.param
    async with httpx.AsyncClient(base_url=served.urls[name], timeout=10) as client:
        yield name, client


def documented(document: Any) -> Iterator[tuple[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


async def test_every_route_is_in_the_table_and_says_that_it_wants_a_token(
    service: tuple[str, httpx.AsyncClient],
) -> None:
    name, client = service
    document = (await client.get("/openapi.json")).json()
    operations = dict(documented(document))
    assert {route.replace(":path", "") for route in operations} == set(ROLES[name])
    for operation in operations.values():
        assert {"bearer": []} in operation["security"]
        assert {"401", "403"} <= set(operation["responses"])
        assert operation["operationId"]


async def test_every_route_opens_to_its_own_roles_alone(service: tuple[str, httpx.AsyncClient]) -> None:
    name, client = service
    for route, roles in ROLES[name].items():
        method, path = route.split()
        path = path.replace("{", "").replace("}", "")
        body: dict[str, str] | None = None if method == "GET" else {}
        for headers in ({}, {"Authorization": "Basic x"}, bearer("not-a-token-of-anybody")):
            reply = await client.request(method, path, headers=headers, json=body)
            assert (route, reply.status_code) == (route, 401)
            assert reply.headers["www-authenticate"] == "Bearer"
            assert reply.headers["content-type"] == "application/problem+json"
        for token in {CALLER, CONDUCTOR, OPERATOR}:
            status = (await client.request(method, path, headers=bearer(token), json=body)).status_code
            if token not in KNOWN[name]:
                assert (route, status) == (route, 401)
            else:
                assert (route, status == 403) == (route, token not in roles)


async def test_every_answer_of_the_public_api_is_documented_with_an_example(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.urls["checkout"]) as client:
        document = (await client.get("/openapi.json")).json()
    for route, operation in documented(document):
        for status, response in operation["responses"].items():
            for media in response.get("content", {}).values():
                shown = media.get("example") or media.get("examples") or _resolved(document, media["schema"])
                assert shown, f"{route} {status} has no example"
    assert "HTTPValidationError" not in document["components"]["schemas"]


def _resolved(document: Any, schema: Any) -> Any:
    name = schema.get("$ref", "").rpartition("/")[2]
    found = document["components"]["schemas"].get(name, {})
    return found.get("example") or found.get("examples")


async def test_every_problem_type_has_its_page_and_no_other_has_one(
    service: tuple[str, httpx.AsyncClient],
) -> None:
    name, client = service
    for slug in {*COMMON, *OWN[name]}:
        page = await client.get(f"/problems/{name}/{slug}")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
    for path in (f"/problems/{name}/no-such-type", "/problems/nobody/not-found"):
        assert (await client.get(path)).status_code == 404


async def test_what_everybody_may_see_needs_no_token(service: tuple[str, httpx.AsyncClient]) -> None:
    _, client = service
    for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert (await client.get(path)).status_code == 200
