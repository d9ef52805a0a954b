"""The settings for measuring only, on a real system: what they do in both styles, and that they are told."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.system import LiveSystem, live_system

SETTINGS = {
    "EMAIL_SIMULATE_TIME": "constant:150ms",
    "WAREHOUSE_SIMULATE_ERRORS": "30%",
    "WAREHOUSE_EVENT_RETRY_MIN_S": "0.05",
    "REWARDS_SIMULATE_CAPACITY": "40",
    "REWARDS_DATABASE_SYNC": "off",
    "CHECKOUT_HTTP_POOL": "httpx",
    "DUET_BROKER_SYNC": "default",
}
WARNED = {
    "checkout": "CHECKOUT_HTTP_POOL",
    "email": "EMAIL_SIMULATE_TIME",
    "warehouse": "WAREHOUSE_SIMULATE_ERRORS",
    "rewards": "REWARDS_DATABASE_SYNC, REWARDS_SIMULATE_CAPACITY",
}
ORDERS = 40


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    with live_system(tmp_path_factory.mktemp("simulated"), SETTINGS) as system:
        yield system


def warnings_of(system: LiveSystem, name: str) -> list[str]:
    lines = system.lab.log_file(name).read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [line["settings"] for line in told if line["message"].endswith("for measuring only")]


def test_who_has_a_setting_for_measuring_only_says_so(system: LiveSystem) -> None:
    assert {name: warnings_of(system, name) for name in WARNED} == {
        name: [named] for name, named in WARNED.items()
    }
    assert "the broker does not sync: for measuring only" in system.lab.log_file("supervisor").read_text()


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
def test_both_styles_wait_fail_and_queue_as_told_and_every_effect_is_made_once(
    system: LiveSystem, style: str
) -> None:
    with system.orders(ORDERS, 100.0, "--style", style, "--member", "--wait", "60") as orders:
        done: dict[str, Any] = orders.finish()
    assert done["completed"] == ORDERS
    assert done["styles"][style]["completion_ms"]["p50"] >= 150
    assert done["seconds"] >= ORDERS / 40  # one reward after the other, although the orders came at once
    attempts = [order["steps"]["warehouse"]["attempts"] for order in done["orders"]]
    assert max(attempts) > 1
    system.audit()
