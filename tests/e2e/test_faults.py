"""A service down, frozen or without its database, replies lost after the commit, SIGTERM under load.

None of them may fail a step or lose an order; each must be seen in the order's representation while it lasts,
and be made good afterwards without anybody's help.
"""

import signal
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import psutil
import pytest

from lab.wire.control import set_weather
from lab.wire.weather import CLEAR, Kind, Weather
from tests.support.faults import (
    HEAR_SOON,
    PARTICIPANTS,
    held_up_by,
    in_progress,
    locked,
    make_whole,
    paused,
    place,
    stopped,
    until,
)
from tests.support.system import ORDER, RESUME_SOON, STOP_S, LiveSystem, eventually, live_system

Fault = Callable[[LiveSystem, str], Any]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """One system for all faults: each test leaves it as it was."""
    quick = {**RESUME_SOON, **HEAR_SOON, "CHECKOUT_CALL_TIMEOUT_S": "0.5", "CHECKOUT_DATABASE_TIMEOUT_S": "1"}
    with live_system(tmp_path_factory.mktemp("faults"), quick) as system:
        yield system


@pytest.fixture(autouse=True)
def leave_it_whole(system: LiveSystem) -> Iterator[None]:
    """A test that fails half-way must not make the next ones fail."""
    yield
    make_whole(system)


CALLED = [
    ("orchestration", name, fault, slugs)
    for fault, slugs in (
        (stopped, {"unreachable", "connection-lost", "timeout"}),
        (paused, {"timeout"}),
        (locked, {"timeout", "storage-unavailable"}),
    )
    for name in PARTICIPANTS
]
# Who is in trouble makes no difference to a checkout that names nobody: each trouble once.
HEARD = [
    ("choreography", name, fault, {"no-outcome"})
    for name, fault in zip(PARTICIPANTS, (stopped, paused, locked), strict=True)
]


@pytest.mark.parametrize(
    ("style", "name", "fault", "slugs"),
    [pytest.param(*case, id=f"{case[0]}-{case[1]}-{case[2].__name__}") for case in CALLED + HEARD],
)
def test_a_service_in_trouble_delays_its_own_step_only_and_for_no_longer_than_the_trouble(
    system: LiveSystem, style: str, name: str, fault: Fault, slugs: set[str]
) -> None:
    system.wait_ready()
    with system.client("checkout") as checkout:
        with fault(system, name):
            placed = place(checkout, style=style, wait_s=3)
            assert placed.status_code == 202, placed.text
            assert placed.headers["Retry-After"]
            order_id = placed.json()["order_id"]
            order = eventually(
                lambda: held_up_by(checkout, order_id, name), 15, f"{name}'s step alone is pending"
            )
            assert order["status"] == "in_progress"
            assert order["steps"][name]["since"]
            assert order["steps"][name]["last_error"] in slugs, order
        done = until(checkout, order_id)
        assert done["steps"][name]["status"] == "succeeded"
        assert "last_error" not in done["steps"][name]
    system.audit()


def test_with_its_own_database_locked_checkout_says_503_and_accepts_nothing(system: LiveSystem) -> None:
    system.wait_ready()
    with system.client("checkout") as checkout:
        before = place(checkout).json()["order_id"]
        key = str(uuid.uuid4())
        with locked(system, "checkout"):
            refused = place(checkout, key=key)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.json()["type"].endswith("/problems/checkout/storage-unavailable")
            assert checkout.get(f"/checkouts/{before}").json()["order_id"] == before
        accepted = place(checkout, key=key)
        assert accepted.status_code in (201, 202)
        assert "Idempotency-Replayed" not in accepted.headers
        until(checkout, accepted.json()["order_id"])
    system.audit()


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
def test_outcomes_that_meet_a_locked_database_are_recorded_once_it_is_free(
    system: LiveSystem, style: str
) -> None:
    system.wait_ready()
    with system.client("checkout") as checkout:
        system.duet("pause", "warehouse")
        order_id = place(checkout, style=style, wait_s=0).json()["order_id"]
        with locked(system, "checkout"):
            system.duet("resume", "warehouse")
            time.sleep(2.5)  # longer than checkout tries to write: the pass has broken off by then
        until(checkout, order_id)
    system.audit()


@pytest.mark.parametrize("kind", ["lose", "cut"])
def test_a_reply_lost_after_the_commit_makes_no_second_effect(system: LiveSystem, kind: Kind) -> None:
    system.wait_ready()
    sku = f"LOST-{kind}"
    body = {**ORDER, "lines": [{"sku": sku, "quantity": 3, "unit_price_minor": 100}]}
    before = set_weather(system.lab, "warehouse", Weather((kind,)), "rest")["rest"]
    system.wait_ready("warehouse")
    with system.client("checkout") as checkout, system.client("warehouse") as warehouse:
        warehouse.base_url = f"http://127.0.0.1:{before['direct']}"  # under the weather
        order_ids = [place(checkout, body=body, wait_s=1).json()["order_id"] for _ in range(3)]
        for order_id in order_ids:
            order = checkout.get(f"/checkouts/{order_id}").json()
            assert order["steps"]["warehouse"]["status"] == "pending", order
            done = f"/shipments/{order_id}"  # which checkout cannot know
            eventually(partial(_is_there, warehouse, done), 10, "the shipment is there")
        after = set_weather(system.lab, "warehouse", CLEAR, "rest")["rest"]
        for order_id in order_ids:
            assert until(checkout, order_id)["steps"]["warehouse"]["attempts"] >= 2
        assert after["hit"][kind] - before["hit"][kind] >= len(order_ids)
        assert warehouse.get(f"/stock/{sku}").json()["allocated"] == 3 * len(order_ids)
    system.audit()


def test_sigterm_under_load_ends_checkout_in_time_and_loses_nothing(system: LiveSystem) -> None:
    victim = psutil.Process(system.wait_ready()["checkout"]["pid"])
    system.duet("pause", "rewards")  # so that passes are under way when the signal comes
    with system.orders(60, 15) as orders, system.client("checkout") as checkout:
        eventually(lambda: in_progress(checkout) >= 5, 20, "orders are in progress")
        victim.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        psutil.wait_procs([victim], timeout=STOP_S)
        assert time.monotonic() - sent < 10
        system.duet("resume", "rewards")
        assert orders.finish()["completed"] == 60
    log = system.lab.log_file("supervisor").read_text()
    assert "checkout ended (exit code 0)" in log
    system.audit()


def _is_there(client: httpx.Client, path: str) -> bool:
    return client.get(path).is_success
