"""Bad input: each kind gets its own status, and each field at fault its JSON pointer. Nothing is written."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkout.world import OPERATOR, ORDER, World

LINE = ORDER["lines"][0]
JSON_TYPE = {"Content-Type": "application/json"}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The example order with one place set to a value; `-` appends."""
    order: dict[str, Any] = orjson.loads(orjson.dumps(ORDER))
    *way, last = path.split("/")
    place: Any = order
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return order


def without(path: str) -> dict[str, Any]:
    """The example order without one member."""
    order = changed(path, None)
    *way, last = path.split("/")
    place: Any = order
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    del place[last]
    return order


BAD: list[tuple[Mapping[str, Any], list[str]]] = [
    *((without(path), [f"#/{path}"]) for path in ("customer", "currency", "lines", "ship_to")),
    *((without(f"customer/{name}"), [f"#/customer/{name}"]) for name in ("name", "email", "rewards_member")),
    *(
        (without(f"lines/0/{name}"), [f"#/lines/0/{name}"])
        for name in ("sku", "quantity", "unit_price_minor")
    ),
    *((without(f"ship_to/{name}"), [f"#/ship_to/{name}"]) for name in ("line1", "city", "country")),
    ({**ORDER, "note": "hello"}, ["#/note"]),
    (changed("customer/phone", "1"), ["#/customer/phone"]),
    (changed("lines/1/gift", True), ["#/lines/1/gift"]),
    (changed("ship_to/floor", 1), ["#/ship_to/floor"]),
    ({**ORDER, "a/b~c": 1}, ["#/a~1b~0c"]),
    ({**ORDER, "lines": []}, ["#/lines"]),
    ({**ORDER, "lines": [LINE] * 101}, ["#/lines"]),
    ({**ORDER, "lines": {}}, ["#/lines"]),
    ({**ORDER, "lines": ["x"]}, ["#/lines/0"]),
    *(
        (changed("lines/0/quantity", value), ["#/lines/0/quantity"])
        for value in (0, -1, 10_001, 1.5, 1.0, "1", True, None, 2**63, 10**30)
    ),
    *(
        (changed("lines/0/unit_price_minor", value), ["#/lines/0/unit_price_minor"])
        for value in (-1, 100_000_001, 0.5, "1", False, None, 2**64)
    ),
    *(
        (changed("lines/0/sku", value), ["#/lines/0/sku"])
        for value in ("", " ", "x" * 65, "a\x00b", "a\nb", "a\x7fb", "a\x85b", 1, None)
    ),
    *((changed("currency", value), ["#/currency"]) for value in ("GBX", "gbp", "GB", "", "GBPP", 826, None)),
    *(
        (changed("ship_to/country", value), ["#/ship_to/country"])
        for value in ("UK", "XX", "gb", "GBR", "", "G\u0392", None)
    ),
    *(
        (changed("customer/email", value), ["#/customer/email"])
        for value in (
            *("", "ada", "ada@", "@example.com", "ada@example", "a@x.org, b@x.org", "a@x.org;b@x.org"),
            *("Ada <ada@example.com>", "ada@example.com\r\nBcc: b@x.org", "ada@exam ple.com", "a\x00@x.org"),
            *("ada@" + "x" * 250 + ".com", "ada@\u202eexample.com", 5, None),
        )
    ),
    *(
        (changed("customer/rewards_member", value), ["#/customer/rewards_member"])
        for value in (1, "yes", None)
    ),
    *(
        (changed(path, value), [f"#/{path}"])
        for path in ("customer/name", "ship_to/line1", "ship_to/city")
        for value in ("", "   ", "x" * 201, "a\x1bb", "a\x00", None, 1)
    ),
    *(
        (changed(path, value), [f"#/{path}"])
        for path in ("ship_to/line2", "ship_to/region", "ship_to/postcode", "ship_to/name")
        for value in ("", "x" * 201, "a\tb", 1)
    ),
    (
        {**changed("lines/1/quantity", 0), "currency": "?"},
        ["#/currency", "#/lines/1/quantity"],
    ),
]


@pytest.mark.parametrize(("order", "pointers"), BAD, ids=lambda value: str(value)[-60:])
async def test_a_field_at_fault_is_named_by_its_pointer(
    world: World, order: Mapping[str, Any], pointers: list[str]
) -> None:
    reply = await world.place(order)
    problem = reply.json()
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "http://127.0.0.1:8000/problems/checkout/validation-error"
    assert sorted(error["pointer"] for error in problem["errors"]) == pointers
    assert all(error["detail"] for error in problem["errors"])
    assert problem["instance"] == "/checkouts"


async def test_nothing_that_was_refused_is_in_the_journal(world: World) -> None:
    await world.place({**ORDER, "currency": "GBX"})
    assert (await world.client.get("/checkouts", headers=OPERATOR)).json()["checkouts"] == []


@pytest.mark.parametrize("body", [b"{", b'{"a":}', b"nonsense", b"[1,2", b'{"a": 1}{', b"\xff\xfe{"])
async def test_malformed_json_is_400(world: World, body: bytes) -> None:
    reply = await world.client.post("/checkouts", content=body, headers=JSON_TYPE)
    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"[" * 30_000, b'{"a":' * 10_000, b'{"a": ' + b"9" * 5_000 + b"}"])
async def test_json_that_is_too_deep_or_too_big_to_parse_is_a_clients_error(
    world: World, body: bytes
) -> None:
    reply = await world.client.post("/checkouts", content=body, headers=JSON_TYPE)
    assert reply.status_code in (400, 422)


@pytest.mark.parametrize("body", [b"null", b"[]", b'"x"', b"1", b""])
async def test_json_that_is_no_object_is_422_at_the_root(world: World, body: bytes) -> None:
    reply = await world.client.post("/checkouts", content=body, headers=JSON_TYPE)
    assert reply.status_code == 422
    assert [error["pointer"] for error in reply.json()["errors"]] == ["#"]


@pytest.mark.parametrize(
    "body",
    [b'{"\\ud800": 1}', b'{"customer": {"name": "\\ud800"}}', b'{"currency": "\\udfff"}', b'{"lines": NaN}'],
)
async def test_characters_and_numbers_that_json_cannot_carry_are_422(world: World, body: bytes) -> None:
    reply = await world.client.post("/checkouts", content=body, headers=JSON_TYPE)
    assert reply.status_code in (400, 422)
    assert reply.json()["type"].startswith("http://127.0.0.1:8000/problems/checkout/")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
async def test_another_content_type_is_415(world: World, content_type: str) -> None:
    reply = await world.client.post(
        "/checkouts", content=orjson.dumps(ORDER), headers={"Content-Type": content_type}
    )
    assert reply.status_code == 415
    assert reply.json()["type"].endswith("/unsupported-media-type")


async def test_a_body_without_a_content_type_is_415(world: World) -> None:
    assert (await world.client.post("/checkouts", content=orjson.dumps(ORDER))).status_code == 415


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_a_content_type_may_have_parameters_and_any_case(world: World, content_type: str) -> None:
    reply = await world.client.post(
        "/checkouts", content=orjson.dumps(ORDER), headers={"Content-Type": content_type}
    )
    assert reply.status_code == 201


async def test_a_body_over_64_kib_is_413_announced_or_not(world: World) -> None:
    body = orjson.dumps({**ORDER, "note": "x" * 65_536})

    async def in_pieces() -> Any:
        for start in range(0, len(body), 1_000):
            yield body[start : start + 1_000]

    for content in (body, in_pieces()):
        reply = await world.client.post("/checkouts", content=content, headers=JSON_TYPE)
        assert reply.status_code == 413
        assert reply.json()["type"].endswith("/problems/checkout/content-too-large")


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(world: World) -> None:
    missing = await world.client.get("/nowhere")
    wrong = await world.client.delete("/checkouts")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert {"GET", "POST"} >= set(wrong.headers["allow"].replace(" ", "").split(","))
    for reply in (missing, wrong):
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("order_id", ["nothing", "%00", "%F0%9F%98%80", "x" * 500, "..%2F", "%ff"])
async def test_an_order_id_that_stands_for_nothing_is_not_found_or_not_valid(
    world: World, order_id: str
) -> None:
    for path in (f"/checkouts/{order_id}", f"/checkouts/{order_id}/events"):
        assert (await world.client.get(path)).status_code in (404, 422)


LARGEST = {
    "customer": {
        "name": "\u00e9" * 200,
        "email": "x" * 64 + "@" + "y" * 60 + ".example",
        "rewards_member": True,
    },
    "currency": "JPY",
    "lines": [{"sku": "s" * 64, "quantity": 10_000, "unit_price_minor": 100_000_000}] * 100,
    "ship_to": {
        **dict.fromkeys(("name", "line1", "line2", "city", "region", "postcode"), "x" * 200),
        "country": "JP",
    },
}


async def test_the_largest_order_that_the_limits_allow_is_taken(world: World) -> None:
    reply = await world.place(LARGEST)
    assert reply.status_code == 201
    assert reply.json()["total_minor"] == 100 * 10_000 * 100_000_000


def _texts(at_most: int) -> st.SearchStrategy[str]:
    return st.text(max_size=at_most)


def _leaves() -> Iterator[str]:
    yield from ("customer/name", "customer/email", "currency", "lines/0/sku", "lines/0/quantity")
    yield from ("ship_to/line1", "ship_to/line2", "ship_to/country", "lines", "customer", "ship_to")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(list(_leaves())),
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _texts(70)
    | st.lists(_texts(3), max_size=2),
)
async def test_whatever_a_field_holds_the_answer_is_a_success_or_the_clients_error(
    world: World, path: str, value: Any
) -> None:
    body = json.dumps(changed(path, None) | {}).encode() if value is None else _with(path, value)
    reply = await world.client.post("/checkouts", content=body, headers=JSON_TYPE)
    assert reply.status_code in (201, 400, 422)


def _with(path: str, value: Any) -> bytes:
    order = changed(path, "@@")
    return json.dumps(order).replace('"@@"', json.dumps(value)).encode()
