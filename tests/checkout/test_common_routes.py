"""What every service has, as the checkout service serves it: health, metrics, docs, problem pages, CORS."""

import asyncio
import re

import pytest

from servicekit.db import StorageUnavailableError
from tests.checkout.conftest import Opening
from tests.checkout.world import ORDER, World, eventually, open_when, refuse

ORIGIN = "https://shop.example"


async def test_the_type_of_a_problem_is_the_address_of_its_page(world: World) -> None:
    problem = (await world.place({**ORDER, "currency": "GBX"})).json()
    path = problem["type"].removeprefix("http://127.0.0.1:8000")
    page = await world.client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert problem["title"] in page.text


@pytest.mark.parametrize("path", ["/problems/checkout/nothing", "/problems/email/not-found"])
async def test_there_is_no_page_for_a_problem_of_nobodys(world: World, path: str) -> None:
    assert (await world.client.get(path)).status_code == 404


async def test_problem_types_take_the_public_url(opening: Opening) -> None:
    async with opening(public_url="https://pay.example/api/") as world:
        problem = (await world.client.get("/checkouts/x")).json()
    assert problem["type"] == "https://pay.example/api/problems/checkout/not-found"


async def test_the_docs_page_needs_no_other_host(world: World) -> None:
    page = (await world.client.get("/docs")).text
    assert not re.findall(r"(?:https?:)?//[a-z0-9]", page.replace("// `SwaggerUI", ""))
    for path in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert (await world.client.get(path)).status_code == 200


async def test_health_needs_no_token_and_readiness_says_what_is_missing(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening(caller_keys="shop:shop-key-0123456789") as world:
        assert (await world.client.get("/healthz")).status_code == 200
        assert (await world.client.get("/readyz")).status_code == 200

        async def gone() -> None:
            raise StorageUnavailableError("the disk is full")

        monkeypatch.setattr(world.health, "check", gone)
        reply = await world.client.get("/readyz")
        assert (reply.status_code, reply.text) == (503, "the database is not available")
        assert (await world.client.get("/healthz")).status_code == 200


async def test_the_metrics_tell_of_orders_steps_and_calls(world: World) -> None:
    await world.place()
    world.services["email"].always = refuse("no")
    await world.place()
    text = (await world.client.get("/metrics")).text
    for line in (
        'orders{status="completed"} 1.0',
        'orders{status="needs_attention"} 1.0',
        'orders{status="in_progress"} 0.0',
        "oldest_unfinished_order_seconds 0.0",
        'orders_accepted_total{style="orchestration"} 2.0',
        'step_attempts_total{outcome="succeeded",service="warehouse"} 2.0',
        'step_attempts_total{outcome="refused",service="email"} 1.0',
        'step_attempt_seconds_count{service="rewards"} 2.0',
        'calls_in_flight{service="email"} 0.0',
        'passes_running{kind="first"} 0.0',
        'http_requests_total{method="POST",route="/checkouts",status="201"} 2.0',
    ):
        assert line in text.splitlines()


async def test_no_path_that_a_client_makes_up_becomes_a_metric(world: World) -> None:
    await world.client.get("/made/up")
    await world.client.request("BREW", "/checkouts/made-up")
    text = (await world.client.get("/metrics")).text
    assert "made/up" not in text
    assert "made-up" not in text
    assert "BREW" not in text


async def test_the_metrics_are_there_also_when_the_database_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(work: object) -> None:
        raise StorageUnavailableError("gone")

    await world.place()
    monkeypatch.setattr(world.database, "read", away)
    reply = await world.client.get("/metrics")
    assert reply.status_code == 200
    lines = reply.text.splitlines()
    assert 'orders{status="completed"} NaN' in lines
    assert "oldest_unfinished_order_seconds NaN" in lines
    assert 'orders_accepted_total{style="orchestration"} 1.0' in lines


async def test_a_browser_of_a_listed_origin_may_call_and_read_the_headers(opening: Opening) -> None:
    async with opening(cors_origins=f"{ORIGIN}, https://other.example") as world:
        asked = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "idempotency-key,prefer,content-type,authorization",
        }
        preflight = await world.client.options("/checkouts", headers=asked)
        reply = await world.place(headers={"Origin": ORIGIN})
        stranger = await world.place(headers={"Origin": "https://evil.example"})
        failing = await world.place({}, headers={"Origin": ORIGIN})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    exposed = {name.strip() for name in reply.headers["access-control-expose-headers"].split(",")}
    assert {"Location", "Preference-Applied", "Retry-After"} <= exposed
    assert "access-control-allow-origin" not in stranger.headers
    assert failing.headers["access-control-allow-origin"] == ORIGIN


async def test_without_listed_origins_no_browser_is_let_in(world: World) -> None:
    assert "access-control-allow-origin" not in (await world.place(headers={"Origin": ORIGIN})).headers


async def test_too_many_requests_at_once_get_503_but_health_is_answered(opening: Opening) -> None:
    async with opening(max_requests=2, cors_origins=ORIGIN) as world:
        gate = asyncio.Event()
        world.services["email"].always = open_when(gate)
        waiting = [asyncio.create_task(world.place()) for _ in range(2)]
        await eventually(lambda: len(world.services["email"].calls) >= 2)
        refused = await world.place(headers={"Origin": ORIGIN})
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["access-control-allow-origin"] == ORIGIN
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await world.client.get(path)).status_code == 200
        gate.set()
        assert [(await each).status_code for each in waiting] == [201, 201]
        assert (await world.place()).status_code == 201
