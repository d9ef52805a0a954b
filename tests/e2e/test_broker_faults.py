"""The broker in trouble, participants who are away, and events that come twice, late, or broken.

Orders say whom they wait for; nobody hears an event to any second effect; and what one event
has wrong stays that event's own trouble.
"""

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from tests.support.events import (
    DEAD_LETTERS,
    ORDERS,
    all_heard,
    deliveries,
    forget_participants,
    last_sequence,
    publish,
    read_events,
)
from tests.support.faults import (
    HEAR_SOON,
    PARTICIPANTS,
    held_up_by,
    locked,
    make_whole,
    place,
    place_now,
    stopped,
    until,
)
from tests.support.system import ORDER, RESUME_SOON, LiveSystem, eventually, live_system

PASSES_S = 3.0  # of passes that come every two seconds at the latest
TRIES = 7  # of a participant in trouble: more than a refused event gets
REFUSED = {**ORDER, "lines": [{"sku": "REFUSE-ME", "quantity": 1, "unit_price_minor": 100}]}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """One system for all faults: each test leaves it as it was."""
    quick = {f"{name.upper()}_DATABASE_TIMEOUT_S": "0.3" for name in PARTICIPANTS}
    with live_system(tmp_path_factory.mktemp("broker"), RESUME_SOON | HEAR_SOON | quick) as system:
        yield system


@pytest.fixture(autouse=True)
def leave_it_whole(system: LiveSystem) -> Iterator[None]:
    """A test that fails half-way must not make the next ones fail."""
    system.wait_ready()
    yield
    make_whole(system)


def test_an_order_says_that_the_broker_is_away_and_since_when(system: LiveSystem) -> None:
    with system.client("checkout") as checkout:
        with stopped(system, "broker"):
            order_id = place_now(checkout)

            def told() -> set[tuple[str | None, bool]]:
                steps = checkout.get(f"/checkouts/{order_id}").json()["steps"].values()
                return {(step.get("last_error"), bool(step.get("since"))) for step in steps}

            eventually(lambda: told() == {("broker-unavailable", True)}, 15, "its steps wait for the broker")
        until(checkout, order_id)


def test_an_event_waits_for_who_is_away_and_is_not_emitted_again(system: LiveSystem) -> None:
    with system.client("checkout") as checkout:
        before = last_sequence(system, ORDERS)
        with stopped(system, "warehouse"):
            order_ids = _place_some(checkout, 5)
            for order_id in order_ids:
                held_up = partial(held_up_by, checkout, order_id, "warehouse")
                step = eventually(held_up, 15, f"{order_id} is held up")["steps"]["warehouse"]
                assert step["last_error"] == "no-outcome"
                assert step["since"]
            with stopped(system, "checkout"):
                pass
            system.wait_ready("checkout")
            time.sleep(PASSES_S)
            assert last_sequence(system, ORDERS) == before + len(order_ids)
        for order_id in order_ids:
            until(checkout, order_id)
        assert last_sequence(system, ORDERS) == before + len(order_ids)
    system.audit()


def test_a_database_that_is_locked_for_long_makes_no_dead_letter(system: LiveSystem) -> None:
    dead = last_sequence(system, DEAD_LETTERS)
    with system.client("checkout") as checkout:
        with locked(system, "rewards"):
            tried = deliveries(system, "rewards")
            [order_id] = _place_some(checkout, 1)
            eventually(lambda: deliveries(system, "rewards") >= tried + TRIES, 60, "it was tried often")
        assert until(checkout, order_id)["steps"]["rewards"]["attempts"] >= TRIES
    assert last_sequence(system, DEAD_LETTERS) == dead
    system.audit()


def test_what_nobody_can_read_is_put_aside_by_each_and_its_neighbours_flow_on(system: LiveSystem) -> None:
    known = _dead_letters(system)
    with system.client("checkout") as checkout:
        order_ids = _place_some(checkout, 3)
        publish(system, [b"no event at all", b'{"specversion":"1.0"}'])
        order_ids += _place_some(checkout, 3)
        for order_id in order_ids:
            until(checkout, order_id)
    eventually(lambda: all_heard(system), 20, "all events are settled")
    new = [letter for letter in _dead_letters(system) if letter not in known]
    assert sorted(letter["participant"] for letter in new) == sorted(2 * PARTICIPANTS)
    assert {letter["readable"] for letter in new} == {False}
    system.audit()


def test_a_refused_event_is_tried_five_times_then_rests_until_somebody_retries_it(system: LiveSystem) -> None:
    with system.client("checkout") as checkout:
        order_id = place(checkout, style="choreography", body=REFUSED, wait_s=0).json()["order_id"]
        others = _place_some(checkout, 3)
        refused = until(checkout, order_id, "needs_attention")["steps"]["warehouse"]
        assert (refused["status"], refused["attempts"], refused["reason"]) == ("failed", 5, "sku-refused")
        for other in others:
            until(checkout, other)
        [letter] = [letter for letter in _dead_letters(system) if letter["key"] == order_id]
        assert (letter["participant"], letter["errors"], letter["readable"]) == ("warehouse", 5, True)
        assert order_id in system.duet("dlq", "show", order_id)
        assert order_id in system.duet("stuck", "list")
        system.duet("stuck", "retry", order_id)
        again = until(checkout, order_id, "needs_attention")["steps"]
        assert again["warehouse"]["attempts"] == 10
        assert {again[name]["status"] for name in ("email", "rewards")} == {"succeeded"}
    assert system.audit()["refused"] == 1


def test_events_that_come_twice_or_in_another_order_or_days_later_change_nothing(system: LiveSystem) -> None:
    with system.client("checkout") as checkout:
        order_ids = _place_some(checkout, 6)
        before = [until(checkout, order_id) for order_id in order_ids]
        held = _holdings(system)
        events = read_events(system)
        again = [events[order_id] for order_id in order_ids]
        publish(system, [*reversed(again), *again])
        eventually(lambda: all_heard(system), 20, "all events are settled")
        assert _holdings(system) == held
        forget_participants(system)
        eventually(lambda: all_heard(system), 30, "all events are heard anew")
        assert _holdings(system) == held
        assert [checkout.get(f"/checkouts/{order_id}").json() for order_id in order_ids] == before
    system.audit()


def _place_some(checkout: httpx.Client, count: int) -> list[str]:
    return [place_now(checkout) for _ in range(count)]


def _holdings(system: LiveSystem) -> tuple[int, int]:
    """What is allocated of the sample's book, and the points of the sample's customer."""
    with system.client("warehouse") as warehouse, system.client("rewards") as rewards:
        points = rewards.post("/balances/lookup", json={"email": ORDER["customer"]["email"]}).json()["points"]
        return warehouse.get("/stock/BOOK-1").json()["allocated"], points


def _dead_letters(system: LiveSystem) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(system.duet("dlq", "list", "--json"))["dead_letters"]
    return found
