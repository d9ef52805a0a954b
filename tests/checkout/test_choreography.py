"""The choreographed checkout, without a process: the promise, whatever the broker and the participants do."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson
import pytest

from servicekit.db import StorageUnavailableError
from tests.checkout.conftest import Opening
from tests.checkout.dancers import CREATED, ORDERS, Dancer, outcome
from tests.checkout.dancing import (
    ASYNC,
    NAMES,
    another_pass,
    emitted,
    everybody_takes_part,
    pauses,
    place,
    placed_now,
)
from tests.checkout.test_failing import metric
from tests.checkout.world import OPERATOR, ORDER, RESULTS, World, eventually, no_pass_runs, open_world
from tests.support.fake_bus import FakeBroker, FakeBus

KEYED = {"Idempotency-Key": "k"}


def steps_of(seen: dict[str, Any]) -> dict[str, str]:
    return {name: step["status"] for name, step in seen["steps"].items()}


async def test_both_styles_answer_alike_but_for_the_style(dance: World) -> None:
    told, heard = await dance.place(), await place(dance)
    assert (told.status_code, heard.status_code) == (201, 201)
    one, other = told.json(), heard.json()
    assert (one.pop("style"), other.pop("style")) == ("orchestration", "choreography")
    for body in (one, other):
        for name in ("order_id", "accepted_at", "completed_at"):
            del body[name]
        for step in body["steps"].values():
            del step["finished_at"]
    assert one == other


async def test_one_event_says_all_of_the_order(dance: World) -> None:
    body = (await place(dance)).json()
    [event] = emitted(dance, body["order_id"])
    details = event.pop("data")
    assert event == {
        "specversion": "1.0",
        "id": body["order_id"],
        "source": "/checkout",
        "type": "duet.OrderCreated",
        "subject": body["order_id"],
        "time": body["accepted_at"],
        "datacontenttype": "application/json",
        "retry": 0,
    }
    facts = ("order_id", "customer", "currency", "total_minor", "lines", "ship_to", "accepted_at")
    assert details == {name: body[name] for name in facts}
    assert all(dancer.heard[0]["data"] == details for dancer in dance.dancers.values())


async def test_many_orders_at_once_all_complete_with_one_event_each(dance: World) -> None:
    replies = await asyncio.gather(*(place(dance) for _ in range(60)))
    ids = {reply.json()["order_id"] for reply in replies}
    assert {reply.status_code for reply in replies} == {201}
    assert [len(emitted(dance, order_id)) for order_id in ids] == [1] * 60
    assert all(set(dancer.effects) == ids for dancer in dance.dancers.values())


@pytest.mark.parametrize("sequence", list(itertools.permutations(NAMES)))
async def test_outcomes_count_in_any_sequence_and_each_once(dance: World, sequence: Sequence[str]) -> None:
    for dancer in dance.dancers.values():
        await dancer.stop()
    order_id = await placed_now(dance)
    for name in sequence:
        for _ in range(2):
            await dance.dancers[name].report(order_id, result=RESULTS[name])
        await dance.until_step(order_id, name, "succeeded")
    seen = await dance.until(order_id, "completed")
    assert [step["attempts"] for step in seen["steps"].values()] == [1, 1, 1]
    assert {name: step["result"] for name, step in seen["steps"].items()} == RESULTS
    await dance.dancers[sequence[0]].report(order_id, "failed", reason="too late")
    await eventually(lambda: not waiting_outcomes(dance))
    assert await dance.read(order_id) == seen


def waiting_outcomes(world: World) -> int:
    """How many outcomes the timeline has not settled."""
    stream = world.broker.stream("OUTCOMES")
    return stream.last_sequence - stream.ack_floor(stream.durables["timeline"])


async def test_an_order_repeated_under_its_key_is_emitted_once(dance: World) -> None:
    first, again = await place(dance, headers=KEYED), await place(dance, headers=KEYED)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert len(emitted(dance, first.json()["order_id"])) == 1


async def test_a_participant_that_skips_its_part_holds_nobody_up(dance: World) -> None:
    dance.dancers["rewards"].skips = "the customer has not joined rewards"
    body = (await place(dance)).json()
    assert body["status"] == "completed"
    assert body["steps"]["rewards"]["reason"] == "the customer has not joined rewards"


async def test_while_the_broker_is_down_orders_are_accepted_and_later_completed(dance: World) -> None:
    dance.broker.stop()
    replies = [await place(dance, headers=ASYNC) for _ in range(5)]
    assert {reply.status_code for reply in replies} == {202}
    ids = [reply.json()["order_id"] for reply in replies]
    for order_id in ids:
        seen = await dance.until_error(order_id, "email", "broker-unavailable")
        assert seen["steps"]["email"]["since"]
    assert await metric(dance, "publish_failing_seconds") > 0
    dance.broker.start()
    for order_id in ids:
        await dance.until(order_id, "completed")
    assert await metric(dance, "publish_failing_seconds") == 0
    assert all(set(dancer.effects) == set(ids) for dancer in dance.dancers.values())


async def test_an_event_of_which_nobody_knows_whether_it_was_stored_is_emitted_again(dance: World) -> None:
    dance.broker.mute.add(ORDERS)
    order_id = await placed_now(dance)
    await eventually(lambda: emitted(dance, order_id))
    await pauses(dance)
    dance.broker.mute.clear()
    await dance.until(order_id, "completed")
    assert {event["id"] for event in emitted(dance, order_id)} == {order_id}


async def test_an_order_names_whom_it_waits_for_and_since_when_and_is_not_emitted_meanwhile(
    dance: World,
) -> None:
    await dance.dancers["warehouse"].stop()
    order_id = await placed_now(dance)
    await another_pass(dance)
    await dance.until_error(order_id, "warehouse", "no-outcome")
    await dance.until_step(order_id, "email", "succeeded")
    seen = await dance.until_step(order_id, "rewards", "succeeded")
    assert steps_of(seen) == {"email": "succeeded", "warehouse": "pending", "rewards": "succeeded"}
    emission = (await dance.journal.get(order_id))[1].emission
    assert emission is not None
    assert datetime.fromisoformat(seen["steps"]["warehouse"]["since"]) == emission.at
    for _ in range(5):
        await another_pass(dance)
    assert len(emitted(dance, order_id)) == 1
    assert (await dance.read(order_id))["steps"]["warehouse"]["since"] == seen["steps"]["warehouse"]["since"]
    dance.dancers["warehouse"].start()
    done = await dance.until(order_id, "completed")
    assert "last_error" not in done["steps"]["warehouse"]
    assert len(emitted(dance, order_id)) == 1


async def test_an_event_that_waits_too_long_is_emitted_again_all_the_same(opening: Opening) -> None:
    async with opening(emit_again_after_s=0.05, resume_max_s=0.02) as world:
        await everybody_takes_part(world)
        await world.dancers["warehouse"].stop()
        order_id = await placed_now(world)
        await eventually(lambda: len(emitted(world, order_id)) >= 3)
        world.dancers["warehouse"].start()
        await world.until(order_id, "completed")
        assert [world.dancers[name].effects[order_id] for name in NAMES] == [1, 1, 1]


async def test_a_wiped_broker_loses_nothing(dance: World) -> None:
    await dance.dancers["warehouse"].stop()
    ids = [await placed_now(dance) for _ in range(10)]
    for order_id in ids:
        await dance.until_step(order_id, "email", "succeeded")
    await eventually(no_pass_runs)
    dance.broker.wipe()
    assert not emitted(dance, ids[0])
    dance.dancers["warehouse"].start()
    for order_id in ids:
        await dance.until(order_id, "completed")
        assert emitted(dance, order_id)
    assert all(set(dancer.effects) == set(ids) for dancer in dance.dancers.values())
    assert set(dance.participants.known()) == set(NAMES)


async def test_outcomes_that_were_lost_are_told_again(dance: World) -> None:
    """A broker that is restarted forgets the outcomes, which are in memory only."""
    for dancer in dance.dancers.values():
        dancer.reports = 0
    order_id = await placed_now(dance)
    await eventually(lambda: all(order_id in dancer.effects for dancer in dance.dancers.values()))
    await eventually(no_pass_runs)
    for dancer in dance.dancers.values():
        dancer.reports = 1
    dance.broker.stop()
    dance.broker.start()
    await dance.until(order_id, "completed")
    assert [dancer.effects[order_id] for dancer in dance.dancers.values()] == [1, 1, 1]


async def test_an_event_that_has_left_the_stream_is_emitted_again(dance: World) -> None:
    await dance.dancers["warehouse"].stop()
    order_id, other = await placed_now(dance), await placed_now(dance)
    await dance.until_step(order_id, "email", "succeeded")
    await dance.until_step(other, "email", "succeeded")
    del dance.broker.streams[ORDERS].messages[0]
    await another_pass(dance)
    await eventually(lambda: emitted(dance, order_id))
    dance.dancers["warehouse"].start()
    await dance.until(order_id, "completed")


async def test_an_event_in_a_stream_that_is_no_more_waits_for_nobody(dance: World) -> None:
    """Though the new stream holds another event under the same sequence."""
    for dancer in dance.dancers.values():
        await dancer.stop()
    broker = dance.choreography.broker
    bus = FakeBus(dance.broker)
    emissions = []
    for _ in range(2):
        dance.broker.wipe()
        await eventually(lambda: ORDERS in dance.broker.streams)
        await bus.ensure_durable(ORDERS, "email", CREATED, ack_wait_s=10)
        await pauses(dance)
        emissions.append(await broker.emit(b"{}"))
        await pauses(dance)
        assert broker.still_holds(emissions[-1], ["email"])
    assert emissions[0].sequence == emissions[1].sequence
    assert not broker.still_holds(emissions[0], ["email"])
    # One that is away has no durable yet; it will be made anew, and deliver all.
    assert broker.still_holds(emissions[1], ["email", "warehouse"])


async def test_an_order_that_nobody_takes_part_in_waits_for_the_first_who_do(opening: Opening) -> None:
    async with opening(dancing=False) as world:
        reply = await place(world, headers=ASYNC)
        order_id = reply.json()["order_id"]
        assert (reply.status_code, reply.json()["status"], reply.json()["steps"]) == (202, "in_progress", {})
        world.dancers["email"].start()
        seen = await world.until(order_id, "completed")
        assert steps_of(seen) == {"email": "succeeded"}


async def test_a_later_joiner_adds_a_step_that_holds_nobody_up(dance: World) -> None:
    await dance.dancers["warehouse"].stop()
    order_id = await placed_now(dance)
    await dance.until_step(order_id, "email", "succeeded")
    late = Dancer("gift-wrap", {"paper": "blue"}, FakeBus(dance.broker))
    dance.stack.push_async_callback(late.stop)
    late.start()
    seen = await dance.until_seen(order_id, lambda seen: "gift-wrap" in seen["steps"])
    assert seen["status"] == "in_progress"
    assert seen["steps"]["gift-wrap"]["awaited"] is False
    assert "awaited" not in seen["steps"]["email"]
    dance.dancers["warehouse"].start()
    assert (await dance.until(order_id, "completed"))["steps"]["gift-wrap"]["result"] == {"paper": "blue"}
    await eventually(lambda: "gift-wrap" in dance.participants.known())
    assert "awaited" not in (await place(dance)).json()["steps"]["gift-wrap"]


async def refused_later(world: World) -> tuple[Dancer, str]:
    """A completed order, and a later joiner who has refused it and is away for now."""
    order_id: str = (await place(world)).json()["order_id"]
    late = Dancer("gift-wrap", {"paper": "blue"}, FakeBus(world.broker), refuses="no paper")
    world.stack.push_async_callback(late.stop)
    late.start()
    seen = await world.until_seen(order_id, lambda seen: "gift-wrap" in seen["steps"])
    assert (seen["status"], seen["steps"]["gift-wrap"]["status"]) == ("completed", "failed")
    await late.stop()
    late.refuses = None
    return late, order_id


async def test_what_a_later_joiner_refused_can_be_retried_and_the_order_stays_completed(dance: World) -> None:
    late, order_id = await refused_later(dance)
    before = await dance.read(order_id)
    reply = await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    assert (reply.status_code, reply.json()["status"]) == (200, "completed")
    assert reply.json()["steps"]["gift-wrap"]["status"] == "pending"
    assert [event["retry"] for event in emitted(dance, order_id)] == [0, 1]
    late.start()
    seen = await dance.until_step(order_id, "gift-wrap", "succeeded")
    assert {**seen, "steps": {**seen["steps"], "gift-wrap": None}} == {
        **before,
        "steps": {**before["steps"], "gift-wrap": None},
    }
    assert (await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)).status_code == 409
    assert len(emitted(dance, order_id)) == 2


async def test_a_retry_of_a_completed_order_leaves_out_who_has_retired(dance: World) -> None:
    _, order_id = await refused_later(dance)
    await eventually(lambda: "gift-wrap" in dance.participants.known())
    await dance.client.post("/participants/gift-wrap/retire", headers=OPERATOR)
    reply = await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    assert (reply.status_code, reply.json()["status"]) == (200, "completed")
    assert reply.json()["steps"]["gift-wrap"]["reason"] == "participant retired"
    assert await dance.read(order_id) == reply.json()


async def test_a_retry_of_a_completed_order_says_so_if_the_broker_is_away_and_can_be_repeated(
    dance: World,
) -> None:
    late, order_id = await refused_later(dance)
    dance.broker.stop()
    away = await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    assert (away.status_code, away.headers["retry-after"]) == (503, "1")
    assert away.json()["type"].endswith("/problems/checkout/broker-unavailable")
    dance.broker.start()
    await eventually(lambda: "OUTCOMES" in dance.broker.streams)  # a dancer tells of each event once
    assert (await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)).status_code == 200
    late.start()
    seen = await dance.until_step(order_id, "gift-wrap", "succeeded")
    assert seen["status"] == "completed"
    assert late.heard[-1]["retry"] > 1


async def test_an_audience_is_served_and_never_awaited(dance: World) -> None:
    bus = FakeBus(dance.broker)
    await bus.ensure_durable(ORDERS, "ears", CREATED, ack_wait_s=10)
    await pauses(dance)
    body = (await place(dance)).json()
    assert (body["status"], set(body["steps"])) == ("completed", set(NAMES))
    [heard] = await bus.pull(ORDERS, "ears").fetch(10, 1)
    assert orjson.loads(heard.data)["id"] == body["order_id"]


async def test_whoever_has_retired_is_awaited_no_more(dance: World) -> None:
    await dance.dancers["warehouse"].stop()
    before = await placed_now(dance)
    await dance.until_step(before, "email", "succeeded")
    await dance.until_step(before, "rewards", "succeeded")
    assert (await dance.client.post("/participants/warehouse/retire", headers=OPERATOR)).status_code == 200
    seen = await dance.until(before, "completed")
    assert seen["steps"]["warehouse"]["reason"] == "participant retired"
    after = (await place(dance)).json()
    assert (after["status"], set(after["steps"])) == ("completed", {"email", "rewards"})
    dance.dancers["warehouse"].start()
    late = await dance.until_step(before, "warehouse", "succeeded")
    assert (late["status"], late["completed_at"]) == ("completed", seen["completed_at"])
    assert dance.participants.known() == ("email", "rewards")


async def test_a_retry_of_what_a_retired_participant_refused_waits_for_nobody(dance: World) -> None:
    dance.dancers["warehouse"].refuses = "sku-refused"
    order_id = (await place(dance)).json()["order_id"]
    await dance.dancers["warehouse"].stop()
    for path in ("/participants/warehouse/retire", f"/checkouts/{order_id}/retry"):
        assert (await dance.client.post(path, headers=OPERATOR)).status_code == 200
    seen = await dance.until(order_id, "completed")
    assert seen["steps"]["warehouse"]["reason"] == "participant retired"
    assert len(emitted(dance, order_id)) == 1


async def test_a_refusal_fails_that_step_alone_and_a_retry_emits_the_event_anew(dance: World) -> None:
    dance.dancers["warehouse"].refuses = "sku-refused"
    reply = await place(dance)
    order_id = reply.json()["order_id"]
    assert (reply.status_code, reply.json()["status"]) == (201, "needs_attention")
    assert reply.json()["steps"]["warehouse"]["reason"] == "sku-refused"
    await pauses(dance)
    assert len(emitted(dance, order_id)) == 1
    await dance.dancers["warehouse"].stop()
    dance.dancers["warehouse"].refuses = None
    retried = await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    assert retried.json()["status"] == "in_progress"
    dance.dancers["warehouse"].start()
    seen = await dance.until(order_id, "completed")
    assert [event["retry"] for event in emitted(dance, order_id)] == [0, 1]
    assert seen["steps"]["warehouse"]["attempts"] == 2
    assert [dancer.effects[order_id] for dancer in dance.dancers.values()] == [1, 1, 1]


async def test_a_failure_that_is_heard_after_a_retry_fails_nothing_if_it_answers_what_was_before(
    dance: World,
) -> None:
    warehouse = dance.dancers["warehouse"]
    warehouse.refuses = "sku-refused"
    order_id = (await place(dance)).json()["order_id"]
    await warehouse.stop()
    await dance.client.post(f"/checkouts/{order_id}/retry", headers=OPERATOR)
    await warehouse.report(order_id, "failed", 0, reason="sku-refused")
    await eventually(lambda: not waiting_outcomes(dance))
    assert (await dance.read(order_id))["status"] == "in_progress"
    await warehouse.report(order_id, "failed", 1, reason="sku-refused")
    await dance.until(order_id, "needs_attention")


@pytest.mark.parametrize("status", ["succeeded", "skipped"])
async def test_success_after_a_failure_needs_no_operator(dance: World, status: str) -> None:
    dance.dancers["warehouse"].refuses = "sku-refused"
    order_id = (await place(dance)).json()["order_id"]
    await dance.dancers["warehouse"].report(order_id, status)
    assert steps_of(await dance.until(order_id, "completed"))["warehouse"] == status


async def test_without_a_timeline_the_brokers_word_closes_the_order(opening: Opening) -> None:
    async with opening(timeline="off") as world:
        await everybody_takes_part(world)
        reply = await place(world)
        body = reply.json()
        assert (reply.status_code, body["status"], body["steps"]) == (201, "completed", {})
        await pauses(world)
        assert len(emitted(world, body["order_id"])) == 1
        world.broker.wipe()
        await pauses(world)
        assert emitted(world, body["order_id"]) == []
        world.broker.stop()
        waiting = await place(world, headers=ASYNC)
        assert (waiting.status_code, waiting.json()["status"]) == (202, "in_progress")
        world.broker.start()
        await world.until(waiting.json()["order_id"], "completed")


BAD = [
    b"",
    b"{",
    b"[]",
    b"\xff",
    b"null",
    outcome("email", "", {"status": "succeeded"}),
    outcome("email", "x", {"status": "pending"}),
    outcome("email", "x", {"status": "succeeded", "attempts": -1}),
    outcome("email", "x", {"status": "succeeded", "result": [1]}),
    outcome("email", "x", {"status": "succeeded"}, retry=-1),
    outcome("email", "x", {"status": "succeeded", "result": {"all": "x" * 32_768}}),
]


async def test_an_outcome_that_cannot_be_read_is_counted_and_dropped_and_its_neighbours_count(
    dance: World, caplog: pytest.LogCaptureFixture
) -> None:
    await dance.dancers["email"].stop()
    order_id = await placed_now(dance)
    bus = FakeBus(dance.broker)
    await asyncio.gather(*(bus.publish("outcomes.email", payload) for payload in BAD))
    await dance.dancers["email"].report(order_id)
    await dance.until_step(order_id, "email", "succeeded")
    await eventually(lambda: not waiting_outcomes(dance))
    assert await metric(dance, 'outcomes_dropped_total{why="unreadable"}') == len(BAD)
    dropped = [record for record in caplog.records if record.message == "outcomes dropped"]
    assert sum(vars(record)["count"] for record in dropped) == len(BAD)
    assert len(dropped) < len(BAD)
    assert len(dance.broker.stream("OUTCOMES").durables["timeline"].dropped) == len(BAD)


async def test_an_outcome_of_no_choreographed_order_is_counted_and_dropped(dance: World) -> None:
    told = (await dance.place()).json()
    for order_id in ("nothing", told["order_id"]):
        await dance.dancers["email"].report(order_id, "failed", reason="a lie")
    await eventually(lambda: not waiting_outcomes(dance))
    assert await metric(dance, 'outcomes_dropped_total{why="unknown"}') == 2
    assert await dance.read(told["order_id"]) == told


async def test_outcomes_wait_for_a_database_in_trouble(dance: World, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = await placed_now(dance)
    await dance.until(order_id, "completed")
    hear = dance.journal.hear
    troubles = iter(range(2))

    async def troubled(outcomes: Any) -> Any:
        if next(troubles, None) is not None:
            raise StorageUnavailableError
        return await hear(outcomes)

    monkeypatch.setattr(dance.journal, "hear", troubled)
    monkeypatch.setattr("checkout.timeline.RETRY_S", 0.01)
    assert (await place(dance)).json()["status"] == "completed"
    assert dance.broker.stream("OUTCOMES").durables["timeline"].dropped == []


async def test_what_was_accepted_outlives_the_process(sqlite_url: str) -> None:
    broker = FakeBroker()
    async with open_world(sqlite_url, broker=broker) as world:
        await everybody_takes_part(world)
        broker.stop()
        order_id = await placed_now(world)
    broker.start()
    async with open_world(sqlite_url, broker=broker) as again:
        seen = await again.until(order_id, "completed")
        assert set(seen["steps"]) == set(NAMES)


async def test_it_is_ready_once_everybody_expected_has_joined(opening: Opening) -> None:
    async with opening(expected_participants="email, rewards", dancing=False) as world:
        waiting = await world.client.get("/readyz")
        assert (waiting.status_code, waiting.text) == (503, "waiting for participants: email, rewards")
        world.dancers["email"].start()
        await eventually(lambda: world.participants.known() == ("email",))
        assert (await world.client.get("/readyz")).text == "waiting for participants: rewards"
        world.dancers["rewards"].start()
        await eventually(lambda: len(world.participants.known()) == 2)
        assert (await world.client.get("/readyz")).status_code == 200
        world.broker.wipe()
        assert (await world.client.get("/readyz")).status_code == 200


async def test_a_settings_default_serves_requests_that_name_no_style(opening: Opening) -> None:
    async with opening(style="choreography") as world:
        await everybody_takes_part(world)
        assert (await world.place(ORDER)).json()["style"] == "choreography"
