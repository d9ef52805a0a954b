"""A step that hangs, fails or is refused: what the order says, and that the other steps go on."""

import asyncio

import httpx
import pytest

from checkout import clients, resume
from tests.checkout.conftest import Opening
from tests.checkout.world import (
    OPERATOR,
    RESULTS,
    Answer,
    FakeService,
    World,
    answer,
    eventually,
    hang,
    lose_reply,
    open_when,
    open_world,
    refuse,
)

NAMES = tuple(RESULTS)


async def metric(world: World, line: str) -> float:
    """The value of one sample, by its name and labels as they are exposed."""
    text = (await world.client.get("/metrics")).text
    found = [each for each in text.splitlines() if each.startswith(line + " ")]
    assert found, f"{line} is not among the metrics"
    return float(found[0].rpartition(" ")[2])


@pytest.mark.parametrize("name", NAMES)
async def test_a_step_that_hangs_delays_neither_of_the_others(world: World, name: str) -> None:
    world.services[name].always = hang
    order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
    others = [other for other in NAMES if other != name]
    for other in others:
        steps = (await world.until_step(order_id, other, "succeeded"))["steps"]
    assert steps[name]["status"] == "pending"
    assert [len(world.services[other].calls) for other in others] == [1, 1]


@pytest.mark.parametrize("name", NAMES)
async def test_a_step_that_is_refused_cancels_neither_of_the_others(world: World, name: str) -> None:
    gate = asyncio.Event()
    for other in NAMES:
        world.services[other].always = refuse("not-today") if other == name else open_when(gate)
    placing = asyncio.create_task(world.place())
    await eventually(lambda: all(service.calls for service in world.services.values()))
    await asyncio.sleep(0.02)
    gate.set()
    body = (await placing).json()
    assert (body["status"], body["completed_at"]) == ("needs_attention", None)
    for other in NAMES:
        assert body["steps"][other]["status"] == ("failed" if other == name else "succeeded")
    assert body["steps"][name]["reason"] == "not-today"
    assert len(world.services[name].calls) == 1


async def test_an_order_that_needs_attention_is_final_and_answered_201(world: World) -> None:
    world.services["warehouse"].always = refuse("sku-refused")
    reply = await world.place()
    assert reply.status_code == 201
    assert "retry-after" not in reply.headers
    assert reply.json()["steps"]["warehouse"]["finished_at"]


async def test_what_is_refused_rests_until_the_operator_says_retry(world: World) -> None:
    world.services["warehouse"].always = refuse("sku-refused")
    order_id = (await world.place()).json()["order_id"]
    await asyncio.sleep(0.1)  # ten times as long as the pause between passes
    assert len(world.services["warehouse"].calls) == 1
    gate = asyncio.Event()
    world.services["warehouse"].always = open_when(gate)
    retried = await world.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    assert retried.status_code == 200
    assert retried.json()["status"] == "in_progress"
    assert "reason" not in retried.json()["steps"]["warehouse"]
    gate.set()
    done = await world.until(order_id, "completed")
    assert done["steps"]["warehouse"]["attempts"] == 2
    assert [len(service.calls) for service in world.services.values()] == [1, 2, 1]
    assert [len(service.effects) for service in world.services.values()] == [1, 1, 1]


async def test_a_retry_that_is_refused_again_needs_attention_again(world: World) -> None:
    world.services["email"].always = refuse("no")
    order_id = (await world.place()).json()["order_id"]
    for _ in range(2):
        assert (await world.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)).status_code == 200
        seen = await world.until(order_id, "needs_attention")
    assert seen["steps"]["email"]["attempts"] == 3


TROUBLE: dict[str, tuple[Answer, str]] = {
    "503": (answer(503), "status-503"),
    "500": (answer(500, content=b"oops"), "status-500"),
    "429": (answer(429), "status-429"),
    "408": (answer(408), "status-408"),
    "425": (answer(425), "status-425"),
    "204": (answer(204), "unexpected-status-204"),
    "html": (answer(200, html="<p>hello"), "reply-wrong-content-type"),
    "no json": (answer(200, content=b"{", headers={"content-type": "application/json"}), "reply-malformed"),
    "shape": (answer(200, json={"delivery": 1}), "reply-wrong-shape"),
    "another order": (answer(200, json={**RESULTS["email"], "order_id": "x"}), "reply-for-another-order"),
    "too large": (answer(200, json={"pad": "x" * 70_000}), "reply-too-large"),
    "302": (answer(302, headers={"location": "http://elsewhere.test/"}), "misrouted-302"),
    "401": (answer(401), "misrouted-401"),
    "403": (answer(403), "misrouted-403"),
    "404": (answer(404), "misrouted-404"),
    "405": (answer(405), "misrouted-405"),
    "bare 422": (answer(422, json={"detail": "no"}), "misrouted-422"),
}


@pytest.mark.parametrize("kind", TROUBLE)
async def test_trouble_never_fails_a_step_and_is_named_while_it_lasts(opening: Opening, kind: str) -> None:
    trouble, slug = TROUBLE[kind]
    async with opening(resume_max_s=0.02) as world:
        world.services["email"].always = trouble
        order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
        body = await world.until_error(order_id, "email", slug)
        assert body["status"] == "in_progress"
        step = body["steps"]["email"]
        assert step["status"] == "pending"
        assert step["since"] >= body["accepted_at"]
        assert "finished_at" not in step
        assert world.services["email"].effects == {}
        world.services["email"].always = None
        done = await world.until(body["order_id"], "completed")
        assert done["steps"]["email"]["attempts"] >= 2
        assert "last_error" not in done["steps"]["email"]
        assert "since" not in done["steps"]["email"]
        assert len(world.services["email"].effects) == 1


async def test_since_stays_at_the_first_trouble_while_the_last_error_moves_on(opening: Opening) -> None:
    async with opening(resume_max_s=0.02) as world:
        world.services["rewards"].always = answer(503)
        order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
        first = (await world.until_error(order_id, "rewards", "status-503"))["steps"]["rewards"]
        world.services["rewards"].always = answer(404)
        step = (await world.until_error(order_id, "rewards", "misrouted-404"))["steps"]["rewards"]
    assert step["since"] == first["since"]
    assert step["attempts"] > first["attempts"]


async def test_the_first_error_is_visible_while_the_retries_still_run(opening: Opening) -> None:
    async with opening(call_backoff_s=5.0) as world:
        world.services["email"].always = answer(503, headers={"retry-after": "3"})
        reply = await world.place(headers={"Prefer": "wait=1"})
    step = reply.json()["steps"]["email"]
    assert (step["status"], step["last_error"]) == ("pending", "status-503")


async def test_a_misrouted_call_is_loud_in_the_metrics(opening: Opening) -> None:
    async with opening() as world:
        world.services["email"].always = answer(404)
        order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
        await world.until_error(order_id, "email", "misrouted-404")
        assert await metric(world, 'misrouted_calls_total{service="email"}') >= 1
        assert await metric(world, 'step_attempts_total{outcome="misrouted-404",service="email"}') >= 1


async def test_a_reply_lost_after_the_effect_leaves_one_effect(world: World) -> None:
    for service in world.services.values():
        service.script.append(lose_reply)
    body = (await world.place()).json()
    assert body["status"] == "completed"
    assert {step["attempts"] for step in body["steps"].values()} == {2}
    assert [len(service.effects) for service in world.services.values()] == [1, 1, 1]


async def test_a_fault_of_our_own_in_one_call_holds_up_no_other(opening: Opening) -> None:
    async def broken(service: FakeService, request: httpx.Request) -> httpx.Response:
        raise RuntimeError("a bug")

    async with opening() as world:
        world.services["warehouse"].always = broken
        order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
        steps = (await world.until_error(order_id, "warehouse", "conductor-error"))["steps"]
        assert steps["warehouse"]["status"] == "pending"
        world.services["warehouse"].always = None
        await world.until(order_id, "completed")


async def test_a_service_that_comes_back_ends_the_wait_of_orders_with_long_pauses(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "TRIAL_EVERY_S", 0.01)
    monkeypatch.setattr(clients, "FAILING_AFTER", 3)
    monkeypatch.setattr(clients, "FAILING_AFTER_S", 0.0)
    async with open_world(sqlite_url, call_max_attempts=1, resume_min_s=500, resume_max_s=600) as world:
        world.services["warehouse"].always = answer(503)
        ids = [(await world.place(headers={"Prefer": "wait=0"})).json()["order_id"] for _ in range(3)]
        await eventually(lambda: len(world.services["warehouse"].calls) >= 5)
        world.services["warehouse"].always = None
        for order_id in ids:
            await world.until(order_id, "completed")


async def test_an_order_whose_process_died_is_finished_by_the_next(sqlite_url: str) -> None:
    fakes = {name: FakeService(name) for name in NAMES}
    fakes["warehouse"].always = hang
    fakes["rewards"].always = lose_reply
    async with open_world(sqlite_url, services=fakes, call_max_attempts=1) as world:
        order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
        await eventually(lambda: all(fake.calls for fake in fakes.values()))
    fakes["warehouse"].always = fakes["rewards"].always = None
    async with open_world(sqlite_url, services=fakes) as world:
        done = await world.until(order_id, "completed")
    assert set(done["steps"]) == set(NAMES)
    assert [len(fake.effects) for fake in fakes.values()] == [1, 1, 1]
