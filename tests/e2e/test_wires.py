"""A service whose wires are bad: what fails is made good, in both styles, and nothing is done twice."""

from collections.abc import Iterator
from datetime import datetime

import pytest

from lab.wire.control import read_weather, set_weather
from lab.wire.weather import slow
from tests.support.faults import HEAR_SOON, make_whole, place
from tests.support.system import RESUME_SOON, LiveSystem, eventually, live_system

ORDERS = 40
SLOW_S = 0.7


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """One system, whose services stand behind no proxies at first."""
    with live_system(tmp_path_factory.mktemp("wires"), {**RESUME_SOON, **HEAR_SOON}) as system:
        yield system


@pytest.fixture(autouse=True)
def leave_it_whole(system: LiveSystem) -> Iterator[None]:
    """A test that fails half-way must not make the next ones fail."""
    yield
    make_whole(system)


def test_with_three_in_ten_exchanges_failing_no_order_is_lost_and_none_done_twice(system: LiveSystem) -> None:
    before = system.wait_ready()["warehouse"]
    said = system.duet("flaky", "warehouse", "30%")
    assert said == "warehouse's weather (REST and broker): reset or lose or cut on 30% of the exchanges\n"
    behind = system.wait_ready("warehouse", but=before["pid"])["warehouse"]
    assert behind["url"] == before["url"]
    with system.orders(ORDERS, 20, "--style", "both", "--wait", "0") as orders:
        orders.finish()
    eventually(lambda: _hits(system, "rest") > 3, 15, "exchanges of the REST wire were hit")
    eventually(lambda: _hits(system, "broker") > 3, 15, "exchanges of the broker wire were hit")
    system.kill("warehouse")
    system.wait_ready("warehouse", but=behind["pid"])
    counted = _hits(system, "rest")
    with system.orders(ORDERS // 2, 20, "--style", "orchestration", "--wait", "0") as orders:
        orders.finish()
    assert _hits(system, "rest") > counted, "started again, it is no longer behind its wires"
    system.duet("calm", "warehouse")
    report = system.audit()
    finished = {status: count for status, count in report["orders"].items() if count}
    assert finished == {"completed": ORDERS + ORDERS // 2}


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
def test_an_order_waits_for_its_slow_service_and_for_no_longer(system: LiveSystem, style: str) -> None:
    set_weather(system.lab, "rewards", slow(SLOW_S))
    system.wait_ready()
    with system.client("checkout") as checkout:
        order = place(checkout, style=style, wait_s=15).json()
    assert order["status"] == "completed", order
    took = {
        name: _seconds(order["accepted_at"], step["finished_at"]) for name, step in order["steps"].items()
    }
    assert took["rewards"] >= SLOW_S
    assert took["rewards"] - max(took["email"], took["warehouse"]) > SLOW_S / 2
    system.audit()


def _hits(system: LiveSystem, wire: str) -> int:
    return sum(read_weather(system.lab, "warehouse")[wire]["hit"].values())


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
