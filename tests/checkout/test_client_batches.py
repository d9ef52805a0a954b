"""The conductor's client where commands share a request: who shares it, and what becomes of each."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
from prometheus_client import CollectorRegistry

from checkout.clients import (
    ASK_AGAIN_S,
    FAILING_AFTER,
    FAILING_AFTER_S,
    MAX_BATCH,
    MAX_BATCH_BYTES,
    ServiceClient,
    Told,
)
from checkout.commands import ConfirmationReply
from checkout.metrics import CallMetrics
from checkout.replies import RefusedError, TroubleError
from tests.checkout.test_bad_replies import ignored
from tests.checkout.world import eventually, settings_for

Json = dict[str, Any]
Answer = Callable[[Sequence[Json]], httpx.Response]


def done(command: Json) -> Json:
    return {"status": 201, "body": {"order_id": command["order_id"], "delivery": "queued"}}


def all_done(commands: Sequence[Json]) -> httpx.Response:
    return httpx.Response(200, json={"results": [done(command) for command in commands]})


@dataclass
class Service:
    """An e-mail service that notes what it is asked, and keeps every request until the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    alone: list[str] = field(default_factory=list)
    together: list[list[str]] = field(default_factory=list)
    answer: Answer = all_done
    now: float = 1_000.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        told = orjson.loads(request.content)
        assert request.headers["authorization"] == "Bearer secret-token"
        if request.url.path == "/emails":
            self.alone.append(told["order_id"])
            await self.gate.wait()
            return httpx.Response(201, json=done(told)["body"])
        assert request.url.path == "/emails/batch"
        self.together.append([command["order_id"] for command in told["items"]])
        await self.gate.wait()
        return self.answer(told["items"])


@dataclass
class Kit:
    service: Service
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    client: ServiceClient = field(init=False)

    def set_up(self, **given: Any) -> None:
        self.registry = CollectorRegistry()
        usual = {"batching": "on", "batches_in_flight": 1, "batch_young_s": 0.0, "call_backoff_s": 0.001}
        self.client = ServiceClient(
            "email",
            "http://email.test",
            "secret-token",
            httpx.MockTransport(self.service),
            settings_for("sqlite:///unused.db", **{**usual, **given}),
            CallMetrics(self.registry),
            clock=lambda: self.service.now,
        )

    def tell(self, *order_ids: str, **more: Any) -> list[asyncio.Task[Told]]:
        return [
            asyncio.create_task(
                self.client.tell("/emails", {"order_id": each, **more}, ConfirmationReply, ignored)
            )
            for each in order_ids
        ]

    async def behind_a_first(self, *order_ids: str, **more: Any) -> list[Told]:
        """Tell the service these while it is busy with another."""
        first = self.tell("first")
        await eventually(lambda: self.service.alone == ["first"])
        waiting = self.tell(*order_ids, **more)
        await asyncio.sleep(0.01)
        self.service.gate.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*waiting)

    def attempts(self, outcome: str) -> float:
        return (
            self.registry.get_sample_value("step_attempts_total", {"service": "email", "outcome": outcome})
            or 0.0
        )


@pytest.fixture
def kit() -> Kit:
    kit = Kit(Service())
    kit.set_up()
    return kit


async def test_a_lone_command_is_the_plain_call_and_those_that_wait_share_a_request(kit: Kit) -> None:
    told = await kit.behind_a_first("a", "b", "c")
    assert (kit.service.alone, kit.service.together) == (["first"], [["a", "b", "c"]])
    assert [each.outcome(order, "email").result for each, order in zip(told, "abc", strict=True)] == [
        {"delivery": "queued"}
    ] * 3
    assert kit.attempts("succeeded") == 4


async def test_with_batching_off_every_command_is_a_plain_call(kit: Kit) -> None:
    kit.set_up(batching="off")
    await kit.behind_a_first("a", "b")
    assert (kit.service.alone, kit.service.together) == (["first", "a", "b"], [])


async def test_one_bad_item_fails_no_neighbour_and_only_it_is_told_again(kit: Kit) -> None:
    kind = "http://email.test/problems/email/no-such-address"

    def mixed(commands: Sequence[Json]) -> httpx.Response:
        kit.service.answer = all_done
        results = [done(command) for command in commands]
        results[1] = {"status": 503, "problem": {"status": 503}}
        results[2] = {"status": 422, "problem": {"type": kind, "status": 422}}
        results[3] = {"status": 201, "body": {"order_id": "somebody else's", "delivery": "queued"}}
        return httpx.Response(200, json={"results": results})

    kit.service.answer = mixed
    well, busy, refused, muddled = await kit.behind_a_first("a", "b", "c", "d")
    assert (well.attempts, well.error) == (1, None)
    assert (busy.attempts, busy.error) == (2, None)
    assert isinstance(refused.error, RefusedError)
    assert (refused.attempts, refused.error.slug) == (1, "no-such-address")
    assert (muddled.attempts, muddled.error) == (2, None)
    again = kit.service.alone[1:] + [order for orders in kit.service.together[1:] for order in orders]
    assert sorted(again) == ["b", "d"]


@pytest.mark.parametrize(
    "failure",
    [
        lambda _: httpx.Response(503),
        lambda _: httpx.Response(422, json={"type": "http://email.test/problems/email/validation-error"}),
        lambda _: httpx.Response(413),
        lambda _: httpx.Response(200, json={"results": []}),
        lambda _: httpx.Response(200, text="hello"),
    ],
    ids=["busy", "no batch to it", "too large", "too few", "no JSON"],
)
async def test_items_of_a_batch_that_failed_as_a_whole_go_alone_the_next_time(
    kit: Kit, failure: Answer
) -> None:
    kit.service.answer = failure
    told = await kit.behind_a_first("a", "b")
    assert [(each.attempts, each.error) for each in told] == [(2, None)] * 2
    assert kit.service.together == [["a", "b"]]
    assert sorted(kit.service.alone) == ["a", "b", "first"]


@pytest.mark.parametrize("status", [404, 405])
async def test_a_service_without_a_batch_route_is_told_one_by_one_and_asked_again_after_a_while(
    kit: Kit, status: int
) -> None:
    kit.service.answer = lambda _: httpx.Response(status)
    told = await kit.behind_a_first("a", "b")
    assert [(each.attempts, each.error) for each in told] == [(1, None)] * 2
    await asyncio.gather(*kit.tell("c", "d"))
    assert (kit.service.together, len(kit.service.alone)) == ([["a", "b"]], 5)
    assert not kit.client.failing
    assert kit.registry.get_sample_value("misrouted_calls_total", {"service": "email"}) is None

    kit.service.now += ASK_AGAIN_S
    kit.service.answer = all_done
    await asyncio.gather(*kit.tell("e", "f"))
    assert kit.service.together == [["a", "b"], ["e", "f"]]


async def test_a_hung_request_holds_up_no_command_that_was_not_in_it(kit: Kit) -> None:
    kit.set_up(batches_in_flight=3, batch_young_s=0.001, call_timeout_s=30.0)
    hung = kit.tell("first")
    await eventually(lambda: kit.service.alone == ["first"])
    passing = kit.service.gate
    kit.service.gate = asyncio.Event()
    kit.service.gate.set()
    async with asyncio.timeout(5):
        for order_id in ("a", "b"):
            (told,) = await asyncio.gather(*kit.tell(order_id))
            assert told.error is None
    assert not hung[0].done()
    passing.set()
    await asyncio.gather(*hung)


async def test_a_batch_holds_no_more_items_and_bytes_than_the_service_takes(kit: Kit) -> None:
    kit.set_up(max_in_flight=1_000)
    many = [f"o{number}" for number in range(MAX_BATCH + 5)]
    await kit.behind_a_first(*many)
    assert [len(orders) for orders in kit.service.together] == [MAX_BATCH, 5]
    kit.service.together.clear()
    kit.service.alone.clear()
    kit.service.gate.clear()
    await kit.behind_a_first(*(f"p{number}" for number in range(6)), filler="x" * (MAX_BATCH_BYTES // 3))
    assert [len(orders) for orders in kit.service.together] == [2, 2, 2]


async def test_a_command_whose_time_is_over_while_it_waits_is_not_told(kit: Kit) -> None:
    first = kit.tell("first")
    await eventually(lambda: kit.service.alone == ["first"])
    late = kit.tell("late")
    await asyncio.sleep(0.01)
    kit.service.now += 60.0
    kit.service.gate.set()
    await asyncio.gather(*first)
    (told,) = await asyncio.gather(*late)
    assert isinstance(told.error, TroubleError)
    assert (told.attempts, told.error.slug) == (1, "timeout")
    assert (kit.service.alone, kit.service.together) == (["first"], [])


async def test_no_more_commands_are_with_a_service_than_calls_would_be(kit: Kit) -> None:
    kit.set_up(max_in_flight=3, batches_in_flight=8)
    told = kit.tell("first")
    await eventually(lambda: kit.service.alone == ["first"])
    told += kit.tell(*"abcdef")
    await eventually(lambda: kit.service.together == [["a", "b"]])
    await asyncio.sleep(0.01)
    assert kit.service.together == [["a", "b"]]
    kit.service.gate.set()
    await asyncio.gather(*told)
    in_batches = [order_id for batch in kit.service.together for order_id in batch]
    assert sorted(in_batches + kit.service.alone) == [*"abcdef", "first"]


async def test_a_service_that_is_behind_says_for_how_long_by_what_it_took_lately(kit: Kit) -> None:
    kit.set_up(max_in_flight=2, batches_in_flight=8)
    kit.client._latency_s = 0.5
    assert kit.client.wait_s == 0.0
    told = kit.tell(*"ab")
    await eventually(lambda: kit.service.together == [["a", "b"]])
    assert kit.client.wait_s == 0.0  # there was room for both
    told += kit.tell(*"cd")
    await eventually(lambda: kit.client.wait_s == pytest.approx(1.0))
    kit.service.gate.set()
    await asyncio.gather(*told)
    assert kit.client.wait_s == 0.0
    assert kit.client._latency_s < 0.5


async def test_a_service_whose_every_answer_in_a_batch_is_trouble_does_not_answer_well(kit: Kit) -> None:
    kit.set_up(call_max_attempts=1)
    kit.service.gate.set()
    kit.service.answer = lambda items: httpx.Response(
        200, json={"results": [{"status": 503, "problem": {}} for _ in items]}
    )
    recovered: list[str] = []
    kit.client.on_recovery = lambda: recovered.append("recovered")
    for _ in range(FAILING_AFTER):
        kit.service.now += FAILING_AFTER_S
        await asyncio.gather(*kit.tell("a", "b"))
    assert (kit.client.failing, recovered) == (True, [])
    kit.service.answer = all_done
    await asyncio.gather(*kit.tell("c", "d"))
    assert (kit.client.failing, recovered) == (False, ["recovered"])


@pytest.mark.parametrize("status", [True, 99, 600, 2**40, "201", None])
async def test_an_answer_without_a_status_of_http_is_none(kit: Kit, status: Any) -> None:
    kit.set_up(call_max_attempts=1)
    kit.service.gate.set()
    kit.service.answer = lambda items: httpx.Response(
        200, json={"results": [{"status": status}] * len(items)}
    )
    told = await asyncio.gather(*kit.tell("a", "b"))
    assert [str(each.error) for each in told] == ["reply-wrong-shape"] * 2
