"""Checkout's side of the broker: when emitting counts as failing, what is emitted again, and who is told."""

import asyncio
from typing import Any

import pytest

from checkout import broker as module
from checkout.broker import Broker
from checkout.journal import Journal
from checkout.resume import Resumer
from servicekit.bus import BusUnavailableError
from servicekit.db import StorageUnavailableError
from tests.checkout.conftest import Opening
from tests.checkout.dancers import CREATED, ORDERS
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
from tests.checkout.placements import placement
from tests.checkout.test_failing import metric
from tests.checkout.world import OPERATOR, World, eventually, hang, no_pass_runs
from tests.support.fake_bus import FakeBroker, FakeBus

FAILING = "publish_failing_seconds"


class CountingBus(FakeBus):
    """Counts the looks at the broker, each of which asks for the durables once."""

    looks = 0

    async def ensure_stream(self, stream: Any) -> Any:
        self.looks += stream.name == ORDERS
        return await super().ensure_stream(stream)


async def passes_over(world: World, order_id: str) -> int:
    await world.journal.census()  # which has written what may wait for that
    return (await world.journal.get(order_id))[1].passes


async def test_emitting_fails_no_more_once_no_order_needs_it_and_the_broker_answers(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNTRIED_S", 0.1)
    dance.broker.stop()
    order_id = await placed_now(dance)
    await dance.until_error(order_id, "email", "broker-unavailable")
    assert (await dance.client.post(f"/checkouts/{order_id}/abandon", headers=OPERATOR)).status_code == 200
    await asyncio.sleep(0.2)
    assert await metric(dance, FAILING) > 0.1
    dance.broker.start()
    await eventually(lambda: not dance.choreography.broker.failing)
    assert await metric(dance, FAILING) == 0


async def test_while_an_order_waits_emitting_goes_on_failing_though_the_broker_answers(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a full disk, of which looking does not tell."""
    monkeypatch.setattr(module, "UNTRIED_S", 0.2)
    dance.broker.full.add(ORDERS)
    await placed_now(dance)
    await eventually(lambda: dance.choreography.broker.failing)
    await asyncio.sleep(0.6)
    assert await metric(dance, FAILING) > 0.4


async def test_while_no_order_can_be_tried_a_broker_that_answers_is_not_to_blame(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the supervisor would start a healthy broker again for as long as a database is locked."""
    monkeypatch.setattr(module, "UNTRIED_S", 0.1)

    async def locked(*_: object) -> Any:
        raise StorageUnavailableError("locked")

    dance.broker.stop()
    await placed_now(dance)
    await eventually(lambda: dance.choreography.broker.failing)
    for name in ("claim", "claim_next"):
        monkeypatch.setattr(dance.journal, name, locked)
    dance.broker.start()
    await eventually(lambda: not dance.choreography.broker.failing)


async def test_it_lapses_though_who_takes_part_cannot_be_written_down(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(durables: object) -> bool:
        raise StorageUnavailableError("locked")

    monkeypatch.setattr(module, "UNTRIED_S", 0.1)
    monkeypatch.setattr(dance.choreography.broker, "_observe", locked)
    dance.broker.full.add(ORDERS)
    with pytest.raises(BusUnavailableError):
        await dance.choreography.broker.emit(b"{}")
    await eventually(lambda: not dance.choreography.broker.failing)


async def test_a_start_without_the_broker_throws_no_emission_away(opening: Opening) -> None:
    broker = FakeBroker()
    async with opening(broker=broker, resume_min_s=600) as world:
        await everybody_takes_part(world)
        await world.dancers["email"].stop()
        order_id = await placed_now(world)
        await world.until_step(order_id, "warehouse", "succeeded")
        await world.until_step(order_id, "rewards", "succeeded")
        await eventually(no_pass_runs)
    broker.up = False
    async with opening(broker=broker, resume_min_s=600, dancing=False) as world:
        await world.until_error(order_id, "email", "no-outcome")
        await eventually(no_pass_runs)
        broker.start()
        world.dancers["email"].start()
        await world.until(order_id, "completed")
        assert len(emitted(world, order_id)) == 1


async def test_orders_taken_up_are_worked_on_though_the_trial_of_another_style_fails(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stumble(lease_s: float, style: str) -> Any:
        raise StorageUnavailableError("locked")

    monkeypatch.setattr(dance.journal, "claim_next", stumble)
    dance.broker.full.add(ORDERS)
    with pytest.raises(BusUnavailableError):
        await dance.choreography.broker.emit(b"{}")
    placed = placement(lease_s=-1)
    await dance.journal.accept(placed)
    await dance.until(placed.order.order_id, "completed")


async def test_a_broker_that_was_never_reached_is_failing(opening: Opening) -> None:
    broker = FakeBroker()
    broker.up = False
    async with opening(broker=broker) as world:
        await placed_now(world)
        await eventually(lambda: world.choreography.broker.failing)


async def test_a_restarted_broker_is_not_given_again_what_it_still_holds(dance: World) -> None:
    """Though its outcomes are gone: nobody had told any of these."""
    await dance.dancers["warehouse"].stop()
    ids = [await placed_now(dance) for _ in range(5)]
    for order_id in ids:
        await dance.until_step(order_id, "email", "succeeded")
        await dance.until_step(order_id, "rewards", "succeeded")
    await eventually(no_pass_runs)
    dance.broker.stop()
    dance.broker.start()
    for order_id in ids:
        await dance.until_error(order_id, "warehouse", "no-outcome")
    assert [len(emitted(dance, order_id)) for order_id in ids] == [1] * 5
    dance.dancers["warehouse"].start()
    for order_id in ids:
        await dance.until(order_id, "completed")


async def test_an_event_that_was_done_with_out_of_turn_is_emitted_again_if_its_outcome_may_be_lost(
    dance: World,
) -> None:
    """An older event that is still being tried keeps the floor below it."""
    for dancer in dance.dancers.values():
        await dancer.stop()
    broker, bus = dance.choreography.broker, FakeBus(dance.broker)
    old, new = await broker.emit(b"{}"), await broker.emit(b"{}")
    messages = {each.sequence: each for each in await bus.pull(ORDERS, "email").fetch(100, 1)}
    await messages[new.sequence].ack()
    last = await broker.emit(b"{}")
    await pauses(dance)
    assert [broker.still_holds(each, ["email"]) for each in (old, new, last)] == [True, True, True]
    dance.broker.stop()
    dance.broker.start()
    await pauses(dance)
    assert [broker.still_holds(each, ["email"]) for each in (old, new, last)] == [False, False, True]


async def test_one_failed_emission_does_not_make_everybody_elses_orders_due(dance: World) -> None:
    await dance.dancers["warehouse"].stop()
    await pauses(dance)  # whoever has just joined makes every order due
    waiting = await placed_now(dance)
    await dance.until_step(waiting, "email", "succeeded")
    await eventually(no_pass_runs)
    assert await passes_over(dance, waiting) == 1
    dance.broker.full.add(ORDERS)
    failed = await placed_now(dance)
    await dance.until_error(failed, "email", "broker-unavailable")
    dance.broker.full.clear()
    await dance.until_step(failed, "email", "succeeded")
    await eventually(lambda: not dance.choreography.broker.failing)
    await pauses(dance)
    await eventually(no_pass_runs)
    assert await passes_over(dance, waiting) == 1


async def test_while_outcomes_wait_to_be_read_no_event_is_emitted_again(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hear = dance.journal.hear
    away = True

    async def troubled(outcomes: Any) -> Any:
        if away:
            raise StorageUnavailableError("locked")
        return await hear(outcomes)

    monkeypatch.setattr("checkout.timeline.RETRY_S", 0.01)
    monkeypatch.setattr(dance.journal, "hear", troubled)
    order_id = await placed_now(dance)
    await eventually(lambda: all(order_id in dancer.effects for dancer in dance.dancers.values()))
    for _ in range(3):
        await another_pass(dance)
    assert len(emitted(dance, order_id)) == 1
    away = False
    await dance.until(order_id, "completed")


async def test_outcomes_that_wait_for_long_hold_nothing_back(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNHEARD_S", 0.05)

    async def troubled(outcomes: Any) -> Any:
        raise StorageUnavailableError("locked")

    monkeypatch.setattr(dance.journal, "hear", troubled)
    order_id = await placed_now(dance)
    await eventually(lambda: all(order_id in dancer.effects for dancer in dance.dancers.values()))
    await another_pass(dance)
    await eventually(lambda: len(emitted(dance, order_id)) > 1)


async def test_an_order_accepted_before_anybody_took_part_is_told_of_the_first_at_once(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkout.resume.TRIAL_EVERY_S", 0.05)
    async with opening(dancing=False, resume_min_s=600) as world:
        order_id = await placed_now(world)
        await eventually(lambda: emitted(world, order_id))
        await eventually(no_pass_runs)
        world.dancers["email"].start()
        await world.until(order_id, "completed")


async def test_without_a_timeline_orders_from_before_it_was_switched_off_are_closed(opening: Opening) -> None:
    broker = FakeBroker()
    async with opening(broker=broker, dancing=False) as world:
        await eventually(lambda: ORDERS in broker.streams)
        for name in NAMES:
            await FakeBus(broker).ensure_durable(
                ORDERS, name, CREATED, ack_wait_s=10, metadata={"duet.outcome": "true"}
            )
        await everybody_takes_part(world)
        order_id = await placed_now(world)
        await eventually(lambda: emitted(world, order_id))
        await eventually(no_pass_runs)
    async with opening(broker=broker, dancing=False, timeline="off") as world:
        seen = await world.until(order_id, "completed")
        assert {step["awaited"] for step in seen["steps"].values()} == {False}
        assert len(emitted(world, order_id)) == 1


async def test_events_that_fail_at_once_do_not_make_it_look_without_a_pause(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_PAUSE_S", 0.1)
    async with opening(broker_poll_s=60) as world:
        bus = CountingBus(world.broker)
        broker = Broker(bus, world.settings, world.participants.observe)  # type: ignore[arg-type]
        task = asyncio.create_task(broker.run())
        await broker.looked(5)
        world.broker.full.add(ORDERS)
        for _ in range(30):
            with pytest.raises(BusUnavailableError):
                await broker.emit(b"{}")
            await asyncio.sleep(0.01)
        assert 2 <= bus.looks <= 10  # once for each failure would be 30 times
        task.cancel()


async def test_somebody_expected_who_never_comes_is_looked_out_for_in_haste_only_at_first(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_LOOKS_FOR_S", 0.3)
    monkeypatch.setattr(module, "LEAST_PAUSE_S", 0.01)
    async with opening(broker_poll_s=60, expected_participants="godot") as world:
        bus = CountingBus(world.broker)
        broker = Broker(bus, world.settings, world.participants.observe)  # type: ignore[arg-type]
        task = asyncio.create_task(broker.run())
        await eventually(lambda: bus.looks > 3)
        await asyncio.sleep(0.4)
        looks = bus.looks
        await asyncio.sleep(0.2)
        assert bus.looks == looks
        task.cancel()


async def test_a_database_in_trouble_is_one_line_in_the_log_not_a_traceback(
    opening: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    async def locked(durables: object) -> bool:
        raise StorageUnavailableError("locked")

    async with opening() as world:
        bus = CountingBus(world.broker)
        broker = Broker(bus, world.settings, locked)  # type: ignore[arg-type]
        task = asyncio.create_task(broker.run())
        await eventually(lambda: bus.looks > 5)
        task.cancel()
    said = [
        record
        for record in caplog.records
        if record.name == "checkout.broker" and record.levelname == "WARNING"
    ]
    assert [(record.getMessage(), record.exc_info) for record in said] == [
        ("the broker cannot be looked at", None)
    ]


async def test_news_that_comes_while_orders_are_made_due_is_not_lost(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []

    async def slowly(style: str | None = None, *, but_stamp: str = "", leased_too: bool = False) -> int:
        if style is None:
            return 0
        released.append(but_stamp)
        if len(released) == 1:
            resumer.recovered("choreography", "two")
        if len(released) == 2:
            raise StorageUnavailableError("locked")
        return 0

    journal = Journal(dance.database, dance.watchers)
    monkeypatch.setattr(journal, "make_all_due", slowly)
    resumer = Resumer(journal, dance.passes, {}, dance.settings, {}, alone=False)
    resumer.recovered("choreography", "one")
    task = asyncio.create_task(resumer.run())
    await eventually(lambda: len(released) >= 3)
    assert released == ["one", "two", "two"]
    task.cancel()


async def test_a_start_with_a_locked_database_waits_for_it_and_says_so_once(
    dance: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[bool] = []

    async def locked_at_first(style: str | None = None, *, leased_too: bool) -> int:
        asked.append(leased_too)
        if len(asked) < 5:
            raise StorageUnavailableError("locked")
        return 0

    journal = Journal(dance.database, dance.watchers)
    monkeypatch.setattr(journal, "make_all_due", locked_at_first)
    resumer = Resumer(journal, dance.passes, {}, dance.settings, {}, alone=True)
    task = asyncio.create_task(resumer.run())
    await eventually(lambda: len(asked) == 5)
    await pauses(dance)
    assert asked == [True] * 5
    said = [
        record
        for record in caplog.records
        if record.name == "checkout.resume" and record.levelname == "WARNING"
    ]
    assert [(record.getMessage(), record.exc_info) for record in said] == [("cannot take up orders", False)]
    task.cancel()


async def test_whatever_was_to_be_released_is_though_less_is_asked_for_afterwards(
    dance: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[str] = []

    async def noted(style: str | None = None, *, but_stamp: str = "", leased_too: bool = False) -> int:
        if style is None:
            return 0
        released.append(but_stamp)
        return 0

    journal = Journal(dance.database, dance.watchers)
    monkeypatch.setattr(journal, "make_all_due", noted)
    resumer = Resumer(journal, dance.passes, {}, dance.settings, {}, alone=False)
    for but_stamp in ("", "one", "one"):
        resumer.recovered("choreography", but_stamp)
    task = asyncio.create_task(resumer.run())
    await eventually(lambda: released)
    assert released == [""]
    task.cancel()


async def test_one_styles_later_passes_take_no_room_from_the_others(opening: Opening) -> None:
    async with opening(max_later_passes=1, pass_timeout_s=50, lease_s=100, call_timeout_s=30) as world:
        await everybody_takes_part(world)
        for service in world.services.values():
            service.always = hang
        for _ in range(3):
            await world.journal.accept(placement(lease_s=-1))
        await eventually(lambda: world.passes.room("orchestration") == 0)
        world.broker.full.add(ORDERS)
        order_id = (await place(world, headers=ASYNC)).json()["order_id"]
        await world.until_error(order_id, "email", "broker-unavailable")
        world.broker.full.clear()
        await world.until(order_id, "completed")
        assert world.passes.room("orchestration") == 0
