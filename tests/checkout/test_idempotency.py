"""`Idempotency-Key` (draft 07): one key, one order, whatever repeats; and what a key is bound to."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkout.idempotency import MAX_KEY, fingerprint, parse_key
from servicekit.problems import ProblemError
from tests.checkout.conftest import Opening
from tests.checkout.world import ORDER, World, eventually, hang, no_pass_runs, open_when, refuse

OTHER = {**ORDER, "currency": "EUR"}
KEYED = {"Idempotency-Key": "k-1"}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        (' "k" ', "k"),
        ('"a\\"b"', 'a"b'),
        ('"a\\\\b"', "a\\b"),
        ('a"b', 'a"b'),
        ('"open', '"open'),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("x" * MAX_KEY, "x" * MAX_KEY),
        ('"' + "x" * MAX_KEY + '"', "x" * MAX_KEY),
    ],
)
def test_a_key_may_be_quoted_or_not(header: str, key: str) -> None:
    assert parse_key([header]) == key


def test_without_a_header_there_is_no_key() -> None:
    assert parse_key([]) is None


@pytest.mark.parametrize(
    "headers", [[""], ["  "], ['""'], ["x" * (MAX_KEY + 1)], ["a", "a"], ["a\x00b"], ["\xe9"], ["a\tb"]]
)
def test_an_invalid_key_is_refused(headers: list[str]) -> None:
    with pytest.raises(ProblemError) as refused:
        parse_key(headers)
    assert refused.value.slug == "idempotency-key-invalid"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_a_fingerprint_does_not_depend_on_the_order_of_members(body: dict[str, Any]) -> None:
    backwards = dict(reversed(body.items()))
    assert fingerprint(body, None) == fingerprint(backwards, None)
    assert fingerprint(body, None) != fingerprint(body, "orchestration")


async def test_a_repeat_finds_the_same_order_and_says_so(world: World) -> None:
    first = await world.place(headers=KEYED)
    again = await world.place(headers={"Idempotency-Key": '"k-1"'})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert [len(service.calls) for service in world.services.values()] == [1, 1, 1]


async def test_the_same_order_without_a_key_is_another_order(world: World) -> None:
    first, second = await world.place(), await world.place()
    assert first.json()["order_id"] != second.json()["order_id"]


async def test_a_hundred_at_once_make_one_order_and_get_a_hundred_answers(world: World) -> None:
    replies = await asyncio.gather(*(world.place(headers=KEYED) for _ in range(100)))
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["order_id"] for reply in replies}) == 1
    assert sum("idempotency-replayed" in reply.headers for reply in replies) == 99
    assert [len(service.calls) for service in world.services.values()] == [1, 1, 1]


async def test_a_repeat_while_the_first_still_runs_waits_as_it_would_for_its_own(world: World) -> None:
    gate = asyncio.Event()
    world.services["email"].always = open_when(gate)
    first = asyncio.create_task(world.place(headers=KEYED))
    await eventually(lambda: world.services["email"].calls)
    early = await world.place(headers={**KEYED, "Prefer": "respond-async"})
    assert (early.status_code, early.json()["status"]) == (202, "in_progress")
    assert (early.headers["idempotency-replayed"], early.headers["retry-after"]) == ("true", "1")
    patient = asyncio.create_task(world.place(headers={**KEYED, "Prefer": "wait=10"}))
    await asyncio.sleep(0.01)
    gate.set()
    assert (await patient).status_code == (await first).status_code == 201
    assert (await patient).headers["idempotency-replayed"] == "true"


async def test_a_repeat_shows_the_order_as_it_now_stands(world: World) -> None:
    world.services["email"].always = refuse("no-such-customer")
    first = await world.place(headers=KEYED)
    assert first.json()["status"] == "needs_attention"
    world.services["email"].always = None
    order_id = first.json()["order_id"]
    await world.client.post(
        f"/checkouts/{order_id}/retry", headers={"Authorization": "Bearer operator-token-0123"}
    )
    await world.until(order_id, "completed")
    assert (await world.place(headers=KEYED)).json()["status"] == "completed"


async def test_the_key_with_another_body_is_refused(world: World) -> None:
    first = await world.place(headers=KEYED)
    other = await world.place(OTHER, headers=KEYED)
    assert other.status_code == 422
    assert other.json()["type"].endswith("/problems/checkout/idempotency-key-reused")
    assert (await world.place(headers=KEYED)).json() == first.json()


async def test_the_body_is_compared_as_json_not_as_text(world: World) -> None:
    backwards = {key: ORDER[key] for key in reversed(list(ORDER))}
    assert (await world.place(headers=KEYED)).status_code == 201
    assert (await world.place(backwards, headers=KEYED)).status_code == 201
    spelt_out = {**ORDER, "ship_to": {key: v for key, v in ORDER["ship_to"].items() if v is not None}}
    assert (await world.place(spelt_out, headers=KEYED)).status_code == 422


async def test_a_style_that_the_request_names_is_part_of_what_the_key_stands_for(world: World) -> None:
    assert (await world.place(headers=KEYED)).status_code == 201
    named = await world.client.post("/checkouts?style=orchestration", json=ORDER, headers=KEYED)
    assert named.status_code == 422


async def test_an_over_long_key_is_400_and_places_nothing(world: World) -> None:
    reply = await world.place(headers={"Idempotency-Key": "x" * 256})
    assert reply.status_code == 400
    assert reply.json()["type"].endswith("/problems/checkout/idempotency-key-invalid")
    assert (await world.place(headers={"Idempotency-Key": "x" * 255})).status_code == 201


async def test_two_key_headers_are_400(world: World) -> None:
    reply = await world.client.post(
        "/checkouts", json=ORDER, headers=[("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    )
    assert reply.status_code == 400


async def test_a_refused_request_binds_no_key(world: World) -> None:
    assert (await world.place({**ORDER, "currency": "XXY"}, headers=KEYED)).status_code == 422
    assert (
        await world.client.post(
            "/checkouts", content=b"{", headers={**KEYED, "Content-Type": "application/json"}
        )
    ).status_code == 400
    assert (await world.place(headers=KEYED)).status_code == 201


async def test_an_overloaded_answer_binds_no_key_either(opening: Opening) -> None:
    async with opening(max_first_passes=1) as world:
        gate = asyncio.Event()
        world.services["email"].always = open_when(gate)
        first = await world.place(headers={"Prefer": "respond-async"})
        assert (await world.place(headers=KEYED)).status_code == 503
        gate.set()
        await world.until(first.json()["order_id"], "completed")
        await eventually(no_pass_runs)
        assert (await world.place(OTHER, headers=KEYED)).status_code == 201


async def test_callers_do_not_share_their_keys(opening: Opening) -> None:
    keys = "shop:shop-key-0123456789,till:till-key-0123456789"
    async with opening(caller_keys=keys) as world:
        replies = [
            await world.place(headers={**KEYED, "Authorization": f"Bearer {token}"})
            for token in ("shop-key-0123456789", "till-key-0123456789", "operator-token-0123")
        ]
    assert [reply.status_code for reply in replies] == [201, 201, 201]
    assert len({reply.json()["order_id"] for reply in replies}) == 3


async def test_a_client_that_goes_away_finds_its_order_by_its_key(world: World) -> None:
    world.services["email"].always = hang
    leaving = asyncio.create_task(world.place(headers={**KEYED, "Prefer": "wait=30"}))
    await eventually(lambda: world.services["email"].calls)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    again = await world.place(headers={**KEYED, "Prefer": "respond-async"})
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["order_id"] == world.services["email"].calls[0]["order_id"]
