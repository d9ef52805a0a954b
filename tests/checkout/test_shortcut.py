"""The shortcut and the route that it leaves requests to: what is sent both ways is answered alike."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import orjson
import pytest

from tests.checkout.test_input import BAD, JSON_TYPE, changed
from tests.checkout.world import OPERATOR, ORDER, World

GOOD = [
    ORDER,
    changed("customer/name", "  Ada  "),
    changed("customer/email", "ada@EXAMPLE.com"),
    changed("customer/email", "ada@bücher.example"),
    changed("lines/0/unit_price_minor", 0),
    changed("ship_to/name", None),
]
ODD = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff",
    b"\xef\xbb\xbf" + orjson.dumps(ORDER),
    orjson.dumps(ORDER).decode().encode("utf-16"),
    orjson.dumps(ORDER).replace(b'"Ada Lovelace"', b'"\\ud800"'),
    orjson.dumps(ORDER).replace(b"1999", b"1999.0"),
    orjson.dumps(ORDER).replace(b"1999", b"NaN"),
    orjson.dumps(ORDER).replace(b"1999", b"1" * 400),
    orjson.dumps(ORDER).replace(b"true", b"1"),
    orjson.dumps(ORDER).replace(b'"GBP"', b'"XXX", "currency": "GBP"'),
    orjson.dumps(ORDER)[:-1] + b', "lines": []}',
]
HEADERS: list[Mapping[str, str]] = [
    {},
    {"Prefer": "respond-async"},
    {"Prefer": "wait=5, respond-async"},
    {"Prefer": "wait=x"},
    {"Idempotency-Key": ""},
    {"Idempotency-Key": "x" * 300},
    {"Authorization": "Bearer nobody"},
    OPERATOR,
    {"Content-Type": "application/problem+json"},
    {"Content-Type": "text/plain"},
]
QUERIES = ["", "style=orchestration", "style=choreography", "style=both", "style=", "style=a&style=b", "x=y"]


async def both_ways(world: World, body: bytes, query: str = "", **headers: str) -> list[httpx.Response]:
    """The answers by the shortcut and by the route."""
    shortcuts = world.app.state.shortcuts
    taken = dict(shortcuts)
    replies = []
    for way in (taken, {}):
        shortcuts.clear()
        shortcuts.update(way)
        replies.append(
            await world.client.post(
                f"/checkouts?{query}" if query else "/checkouts",
                content=body,
                headers={**JSON_TYPE, **headers},
            )
        )
    shortcuts.update(taken)
    return replies


def seen(reply: httpx.Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    """What the two ways must have in common: all but ids and times, and how far the order was by then."""
    body = reply.json()
    kept = ("style", "customer", "currency", "lines", "ship_to", "total_minor", "type", "detail", "errors")
    names = ("content-type", "preference-applied", "idempotency-replayed", "connection", "allow")
    headers = {name: reply.headers[name] for name in names if name in reply.headers}
    return reply.status_code, headers, {name: body[name] for name in kept if name in body}


@pytest.mark.parametrize("order", GOOD)
async def test_a_good_order_is_taken_and_comes_to_the_same(world: World, order: Mapping[str, Any]) -> None:
    taken, routed = await both_ways(world, orjson.dumps(order))
    assert taken.status_code == 201
    assert seen(taken) == seen(routed)


@pytest.mark.parametrize("body", [*(json.dumps(order).encode() for order, _ in BAD), *ODD])
async def test_any_other_body_is_answered_as_by_the_route(world: World, body: bytes) -> None:
    taken, routed = await both_ways(world, body)
    assert seen(taken) == seen(routed)


@pytest.mark.parametrize("headers", HEADERS)
async def test_headers_count_for_as_much(world: World, headers: Mapping[str, str]) -> None:
    taken, routed = await both_ways(world, orjson.dumps(ORDER), **headers)
    assert seen(taken) == seen(routed)


@pytest.mark.parametrize("query", QUERIES)
async def test_the_query_counts_for_as_much(world: World, query: str) -> None:
    taken, routed = await both_ways(world, orjson.dumps(ORDER), query, Prefer="respond-async")
    assert seen(taken) == seen(routed)


@pytest.mark.parametrize("way", [[0, 1], [1, 0]])
async def test_a_key_means_the_same_order_whichever_way_it_comes(world: World, way: list[int]) -> None:
    key = {"Idempotency-Key": "one"}
    replies = await both_ways(world, orjson.dumps(ORDER), "", **key)
    assert replies[0].json() == replies[1].json()
    assert replies[1].headers["idempotency-replayed"] == "true"
    again = await both_ways(world, orjson.dumps(changed("currency", "EUR")), "", **key)
    assert [reply.status_code for reply in again] == [422, 422]
    assert seen(again[way[0]]) == seen(again[way[1]])
