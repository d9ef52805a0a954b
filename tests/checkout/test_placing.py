"""`POST /checkouts`: accept, wait, answer; and what a client may prefer."""

import asyncio

import httpx
import pytest

from servicekit.db import StorageUnavailableError
from tests.checkout.conftest import Opening
from tests.checkout.world import ORDER, FakeService, World, answer, eventually, hang, open_when, open_world

GUEST = {**ORDER, "customer": {**ORDER["customer"], "rewards_member": False}}


async def test_an_order_whose_steps_all_succeed_is_answered_201_and_completed(world: World) -> None:
    reply = await world.place()
    body = reply.json()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/checkouts/{body['order_id']}"
    assert "retry-after" not in reply.headers
    assert "preference-applied" not in reply.headers
    assert (body["status"], body["style"], body["total_minor"]) == ("completed", "orchestration", 4348)
    assert {name: step["status"] for name, step in body["steps"].items()} == dict.fromkeys(
        ("email", "warehouse", "rewards"), "succeeded"
    )
    assert body["steps"]["warehouse"]["result"] == {"shipment_id": "s-1", "state": "preparing"}
    assert all(step["attempts"] == 1 and "last_error" not in step for step in body["steps"].values())
    assert body["completed_at"] >= body["accepted_at"]
    assert [len(service.effects) for service in world.services.values()] == [1, 1, 1]


async def test_the_representation_repeats_what_was_ordered_and_reads_the_same_later(world: World) -> None:
    placed = await world.place()
    body = placed.json()
    assert {key: body[key] for key in ORDER} == ORDER
    assert (await world.client.get(placed.headers["location"])).json() == body


async def test_rewards_is_skipped_for_whoever_has_not_joined(world: World) -> None:
    steps = (await world.place(GUEST)).json()["steps"]
    assert steps["rewards"]["status"] == "skipped"
    assert steps["rewards"]["reason"] == "the customer has not joined rewards"
    assert steps["rewards"]["attempts"] == 0
    assert world.services["rewards"].calls == []


async def test_the_parcel_goes_to_the_customer_where_the_address_names_nobody(world: World) -> None:
    ship_to = {key: ORDER["ship_to"][key] for key in ("line1", "city", "country")}
    body = (await world.place({**ORDER, "ship_to": ship_to})).json()
    assert body["ship_to"]["name"] == "Ada Lovelace"
    assert world.services["warehouse"].calls[0]["ship_to"]["name"] == "Ada Lovelace"


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("respond-async, wait=0", "respond-async, wait=0"),
        ("wait=0", "wait=0"),
    ],
)
async def test_who_would_not_wait_gets_202_at_once_and_hears_what_was_applied(
    world: World, prefer: str, applied: str
) -> None:
    world.services["email"].always = hang
    async with asyncio.timeout(2):
        reply = await world.place(headers={"Prefer": prefer})
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == applied
    assert reply.headers["retry-after"] == "1"
    assert reply.headers["location"] == f"/checkouts/{reply.json()['order_id']}"
    assert reply.json()["status"] == "in_progress"


async def test_who_waits_and_would_be_answered_early_is_answered_once_all_steps_are_final(
    world: World,
) -> None:
    reply = await world.place(headers={"Prefer": "respond-async, wait=10"})
    assert (reply.status_code, reply.headers["preference-applied"]) == (201, "wait=10")


async def test_the_default_wait_is_the_services_setting(opening: Opening) -> None:
    async with opening(default_wait_s=0.5) as world:
        world.services["warehouse"].always = hang
        async with asyncio.timeout(2):
            reply = await world.place()
    assert reply.status_code == 202
    assert "preference-applied" not in reply.headers
    steps = reply.json()["steps"]
    assert [steps[name]["status"] for name in ("email", "warehouse", "rewards")] == [
        "succeeded",
        "pending",
        "succeeded",
    ]


async def test_reading_waits_as_long_as_it_is_asked_to_and_not_without(world: World) -> None:
    gate = asyncio.Event()
    world.services["rewards"].always = open_when(gate)
    location = (await world.place(headers={"Prefer": "respond-async"})).headers["location"]
    early = await world.client.get(location)
    assert (early.json()["status"], early.headers["retry-after"]) == ("in_progress", "1")
    waiting = asyncio.create_task(world.client.get(location, headers={"Prefer": "wait=10"}))
    await asyncio.sleep(0)
    gate.set()
    reply = await waiting
    assert reply.status_code == 200
    assert reply.headers["preference-applied"] == "wait=10"
    assert reply.json()["status"] == "completed"
    assert "retry-after" not in reply.headers


async def test_nobody_watches_any_more_once_everybody_is_answered(world: World) -> None:
    await asyncio.gather(*(world.place(headers={"Prefer": "wait=5"}) for _ in range(20)))
    assert len(world.watchers) == 0


async def test_waiting_clients_are_sent_home_with_what_there_is_when_the_service_drains(world: World) -> None:
    world.services["email"].always = hang
    waiting = asyncio.create_task(world.place(headers={"Prefer": "wait=30"}))
    await eventually(lambda: world.services["email"].calls)
    world.health.drain()
    async with asyncio.timeout(2):
        reply = await waiting
    assert reply.status_code == 202
    assert (await world.client.get("/readyz")).status_code == 503
    assert (await world.client.get("/healthz")).status_code == 200


async def test_too_many_first_passes_get_503_and_leave_nothing_behind(opening: Opening) -> None:
    async with opening(max_first_passes=2) as world:
        world.services["email"].always = hang
        for _ in range(2):
            assert (await world.place(headers={"Prefer": "respond-async"})).status_code == 202
        refused = await world.place(headers={"Prefer": "respond-async"})
        page = (
            await world.client.get("/checkouts", headers={"Authorization": "Bearer operator-token-0123"})
        ).json()
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["type"].endswith("/problems/checkout/overloaded")
    assert len(page["checkouts"]) == 2


async def test_a_replay_is_answered_also_when_there_is_too_much_work(opening: Opening) -> None:
    async with opening(max_first_passes=1) as world:
        world.services["email"].always = hang
        headers = {"Idempotency-Key": "k", "Prefer": "respond-async"}
        first = await world.place(headers=headers)
        again = await world.place(headers=headers)
        other = await world.place({**GUEST}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["order_id"] == first.json()["order_id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert other.status_code == 422


async def test_no_more_first_passes_run_than_are_allowed_however_many_come_at_once(opening: Opening) -> None:
    async with opening(max_first_passes=5) as world:
        world.services["email"].always = hang
        replies = await asyncio.gather(*(world.place(headers={"Prefer": "respond-async"}) for _ in range(20)))
    assert sorted(reply.status_code for reply in replies) == [202] * 5 + [503] * 15


async def test_the_database_being_away_gets_503_with_retry_after(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise StorageUnavailableError("gone")

    monkeypatch.setattr(world.journal, "accept", away)
    reply = await world.place()
    assert reply.status_code == 503
    assert reply.json()["type"].endswith("/storage-unavailable")
    assert reply.headers["retry-after"] == "1"
    assert [service.calls for service in world.services.values()] == [[], [], []]


async def test_nobody_hears_of_an_order_before_it_is_on_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard_before_commit: list[int] = []
    accept = world.journal.accept

    async def slowly(placement: object) -> object:
        await asyncio.sleep(0.02)
        heard_before_commit.append(sum(len(service.calls) for service in world.services.values()))
        return await accept(placement)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(world.journal, "accept", slowly)
    assert (await world.place()).status_code == 201
    assert heard_before_commit == [0]


async def test_a_style_that_the_service_does_not_have_is_a_bad_parameter(world: World) -> None:
    reply = await world.client.post("/checkouts?style=waltz", json=ORDER)
    assert reply.status_code == 422
    assert [error["parameter"] for error in reply.json()["errors"]] == ["style"]


async def test_what_the_services_are_told_carries_their_own_tokens(sqlite_url: str) -> None:
    seen: dict[str, str] = {}

    class Listening(FakeService):
        async def handle(self, request: httpx.Request) -> httpx.Response:
            seen[str(request.url)] = request.headers["authorization"]
            return await super().handle(request)

    fakes: dict[str, FakeService] = {name: Listening(name) for name in ("email", "warehouse", "rewards")}
    async with open_world(sqlite_url, services=fakes) as world:
        await world.place()
    assert seen == {
        "http://email.test/emails": "Bearer email-token-0123456",
        "http://warehouse.test/shipments": "Bearer warehouse-token-0123456",
        "http://rewards.test/balances": "Bearer rewards-token-0123456",
    }


async def test_a_reply_that_is_no_success_is_not_taken_for_one(world: World) -> None:
    world.services["warehouse"].script.extend([answer(200, json={}), answer(200, content=b"{")])
    steps = (await world.place()).json()["steps"]
    assert steps["warehouse"]["attempts"] == 3
    assert len(world.services["warehouse"].effects) == 1
