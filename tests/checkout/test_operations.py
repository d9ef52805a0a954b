"""The operator's routes, and who may see and do what."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.checkout.conftest import Opening
from tests.checkout.world import OPERATOR, ORDER, World, eventually, hang, open_when, refuse

SHOP = {"Authorization": "Bearer shop-key-0123456789"}
TILL = {"Authorization": "Bearer till-key-0123456789"}
STRANGER = {"Authorization": "Bearer not-a-token-of-anybody"}
KEYS = "shop:shop-key-0123456789,till:till-key-0123456789"


async def listed(world: World, query: str = "") -> list[str]:
    page = (await world.client.get(f"/checkouts?{query}", headers=OPERATOR)).json()
    return [each["order_id"] for each in page["checkouts"]]


async def test_the_list_pages_through_all_orders_oldest_first(world: World) -> None:
    placed = [(await world.place()).json()["order_id"] for _ in range(5)]
    seen: list[str] = []
    cursor = ""
    for _ in range(10):
        page = (await world.client.get(f"/checkouts?limit=2{cursor}", headers=OPERATOR)).json()
        seen += [each["order_id"] for each in page["checkouts"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == placed


async def test_a_page_that_is_just_full_is_followed_by_an_empty_one(world: World) -> None:
    await world.place()
    full = (await world.client.get("/checkouts?limit=1", headers=OPERATOR)).json()
    empty = (await world.client.get(f"/checkouts?cursor={full['next']}", headers=OPERATOR)).json()
    assert empty == {"checkouts": [], "next": None}


async def test_the_list_holds_the_same_representation_as_the_order(world: World) -> None:
    placed = (await world.place()).json()
    page = (await world.client.get("/checkouts", headers=OPERATOR)).json()
    assert page["checkouts"] == [placed]


async def test_the_list_can_be_narrowed_by_status_and_age(world: World) -> None:
    done = (await world.place()).json()["order_id"]
    world.services["email"].always = refuse("no")
    stuck = (await world.place()).json()["order_id"]
    world.services["email"].always = hang
    running = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
    assert await listed(world, "status=completed") == [done]
    assert await listed(world, "status=needs_attention") == [stuck]
    assert await listed(world, "status=in_progress") == [running]
    assert await listed(world, "older_than_s=3600") == []
    assert await listed(world, "older_than_s=0.001") == [done, stuck, running]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("status=lost", "status"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("older_than_s=-1", "older_than_s"),
        ("older_than_s=nan", "older_than_s"),
        ("older_than_s=inf", "older_than_s"),
        ("cursor=!!!", "cursor"),
        ("cursor=MTI", "cursor"),
        ("cursor=" + "A" * 201, "cursor"),
        ("cursor=%00", "cursor"),
    ],
)
async def test_a_bad_query_is_422_and_names_the_parameter(world: World, query: str, parameter: str) -> None:
    reply = await world.client.get(f"/checkouts?{query}", headers=OPERATOR)
    assert reply.status_code == 422
    assert [error["parameter"] for error in reply.json()["errors"]] == [parameter]


async def test_the_oldest_age_that_can_be_asked_for_lists_nothing(world: World) -> None:
    await world.place()
    assert await listed(world, "older_than_s=1e9") == []


async def test_only_an_order_that_needs_attention_can_be_retried(world: World) -> None:
    done = (await world.place()).json()["order_id"]
    world.services["email"].always = hang
    running = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
    for order_id in (done, running):
        reply = await world.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
        assert reply.status_code == 409
        assert reply.json()["type"].endswith("/problems/checkout/order-status")


async def test_an_abandoned_order_needs_attention_and_rests(world: World) -> None:
    world.services["email"].always = hang
    world.services["rewards"].always = refuse("no")
    order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
    await world.until_step(order_id, "rewards", "failed")
    reply = await world.client.post(f"/checkouts/{order_id}/abandon", headers=OPERATOR)
    steps = reply.json()["steps"]
    assert reply.json()["status"] == "needs_attention"
    assert (steps["email"]["status"], steps["email"]["reason"]) == ("failed", "abandoned")
    assert (steps["rewards"]["reason"], steps["rewards"]["last_error"]) == ("abandoned", "no")
    assert steps["warehouse"]["status"] == "succeeded"
    assert await listed(world, "status=needs_attention") == [order_id]


async def test_an_abandoned_order_can_still_be_retried(world: World) -> None:
    world.services["email"].always = refuse("no")
    order_id = (await world.place()).json()["order_id"]
    await world.client.post(f"/checkouts/{order_id}/abandon", headers=OPERATOR)
    world.services["email"].always = None
    assert (await world.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)).status_code == 200
    await world.until(order_id, "completed")


async def test_a_success_that_comes_after_all_replaces_what_was_abandoned(world: World) -> None:
    gate = asyncio.Event()
    world.services["email"].always = open_when(gate)
    order_id = (await world.place(headers={"Prefer": "respond-async"})).json()["order_id"]
    await eventually(lambda: world.services["email"].calls)
    await world.client.post(f"/checkouts/{order_id}/abandon", headers=OPERATOR)
    gate.set()
    done = await world.until(order_id, "completed")
    assert done["steps"]["email"] == {
        **done["steps"]["email"],
        "status": "succeeded",
        "result": {"delivery": "queued"},
    }
    assert "reason" not in done["steps"]["email"]


async def test_a_completed_order_cannot_be_abandoned(world: World) -> None:
    order_id = (await world.place()).json()["order_id"]
    assert (await world.client.post(f"/checkouts/{order_id}/abandon", headers=OPERATOR)).status_code == 409


@pytest.mark.parametrize("what", ["retry", "abandon"])
async def test_an_unknown_order_cannot_be_changed(world: World, what: str) -> None:
    assert (await world.client.post(f"/checkouts/nothing/{what}", headers=OPERATOR)).status_code == 404


async def test_a_caller_sees_its_own_orders_and_the_operator_all(opening: Opening) -> None:
    async with opening(caller_keys=KEYS) as world:
        location = (await world.place(headers=SHOP)).headers["location"]
        for path in (location, f"{location}/events"):
            seen = [
                (await world.client.get(path, headers={**who, "Last-Event-ID": "999"})).status_code
                for who in (SHOP, OPERATOR, TILL, STRANGER, {})
            ]
            assert seen[2:] == [404, 401, 401]
            assert set(seen[:2]) <= {200, 204}


async def test_an_order_of_somebody_else_looks_like_none(opening: Opening) -> None:
    async with opening(caller_keys=KEYS) as world:
        location = (await world.place(headers=SHOP)).headers["location"]
        theirs = (await world.client.get(location, headers=TILL)).json()
        none = (await world.client.get("/checkouts/nothing", headers=TILL)).json()
    assert {**theirs, "instance": ""} == {**none, "instance": ""}


ROUTES = [
    ("POST", "/checkouts", {"caller", "operator"}),
    ("GET", "/checkouts/{id}", {"caller", "operator"}),
    ("GET", "/checkouts/{id}/events", {"caller", "operator"}),
    ("GET", "/checkouts", {"operator"}),
    ("POST", "/checkouts/{id}/retry", {"operator"}),
    ("POST", "/checkouts/{id}/abandon", {"operator"}),
    ("GET", "/participants", {"operator"}),
    ("POST", "/participants/{id}/retire", {"operator"}),
]


async def _ask(world: World, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = ORDER if path == "/checkouts" and method == "POST" else None
    return await world.client.request(method, path.replace("{id}", "nothing"), headers=headers, json=body)


@pytest.mark.parametrize(("method", "path", "roles"), ROUTES)
async def test_each_route_opens_to_its_own_roles_alone(
    opening: Opening, method: str, path: str, roles: set[str]
) -> None:
    async with opening(caller_keys=KEYS) as world:
        for headers in (
            {},
            STRANGER,
            {"Authorization": "Bearer"},
            {"Authorization": SHOP["Authorization"].replace("Bearer", "Basic")},
            {"Authorization": SHOP["Authorization"] + "x"},
        ):
            reply = await _ask(world, method, path, headers)
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"
        for role, headers in (("caller", SHOP), ("operator", OPERATOR)):
            status = (await _ask(world, method, path, headers)).status_code
            assert (status == 403) == (role not in roles)
            assert status != 401


async def test_the_open_api_lets_nobody_but_the_operator_at_the_operators_routes(world: World) -> None:
    for method, path, roles in ROUTES:
        reply = await _ask(world, method, path, {})
        assert (reply.status_code == 401) == (roles == {"operator"})
        assert ("www-authenticate" in reply.headers) == (roles == {"operator"})
        assert (await _ask(world, method, path, STRANGER)).status_code == 401


async def test_no_route_is_missing_from_the_table_of_roles(world: World) -> None:
    document = (await world.client.get("/openapi.json")).json()
    served = {
        (method.upper(), path.replace("{order_id}", "{id}").replace("{name}", "{id}"))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert served == {(method, path) for method, path, _ in ROUTES}


async def test_times_are_rfc_3339_in_utc(world: World) -> None:
    body = (await world.place()).json()
    for stamp in (body["accepted_at"], body["completed_at"], body["steps"]["email"]["finished_at"]):
        assert stamp.endswith("Z")
        assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(minutes=1)
