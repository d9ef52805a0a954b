"""A broker that is killed, frozen, stopped, or forgets: orders are accepted all the while, and soon complete.

With the settings as they come: half a minute after its return at the latest nothing is unfinished, whether
it was accepted before the fault, during it, or after.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.support.events import ORDERS, last_sequence
from tests.support.faults import make_whole, paused, place_now, stopped, until
from tests.support.returns import check_completed_soon_after, now
from tests.support.system import LiveSystem, eventually, live_system

COUNT = 100
RATE = 20
AWAY_S = 3.0
SOME = 10
LOST = 6


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveSystem]:
    """One system for all faults: each test leaves it as it was."""
    with live_system(tmp_path_factory.mktemp("return")) as system:
        yield system


@pytest.fixture(autouse=True)
def leave_it_whole(system: LiveSystem) -> Iterator[None]:
    """A test that fails half-way must not make the next ones fail."""
    system.wait_ready()
    yield
    make_whole(system)


@contextmanager
def _killed(system: LiveSystem) -> Iterator[None]:
    pid = system.kill("broker")
    yield
    system.wait_ready("broker", but=pid)


@contextmanager
def _frozen(system: LiveSystem) -> Iterator[None]:
    with paused(system, "broker"):
        yield
        time.sleep(AWAY_S)


@contextmanager
def _restarted(system: LiveSystem) -> Iterator[None]:
    with stopped(system, "broker"):
        yield
        time.sleep(AWAY_S)
    system.wait_ready("broker")


@contextmanager
def _wiped(system: LiveSystem) -> Iterator[None]:
    with paused(system, "warehouse"), system.client("checkout") as checkout:
        before = last_sequence(system, ORDERS)
        for _ in range(LOST):  # events that somebody still waits for
            place_now(checkout)
        eventually(lambda: last_sequence(system, ORDERS) >= before + LOST, 20, "events wait")
        system.wipe()
        yield
    system.wait_ready()


@pytest.mark.parametrize("fault", [_killed, _frozen, _restarted, _wiped])
def test_orders_are_accepted_whatever_the_broker_does_and_complete_soon_after_its_return(
    system: LiveSystem, fault: Callable[[LiveSystem], AbstractContextManager[None]]
) -> None:
    before = last_sequence(system, ORDERS)
    with system.client("checkout") as checkout, system.orders(COUNT, RATE, "--style", "both") as orders:
        eventually(lambda: last_sequence(system, ORDERS) > before + SOME, 20, "events are emitted")
        away_at = now()
        with fault(system):
            meanwhile = place_now(checkout)
        back_at = now()
        afterwards = place_now(checkout)
        placed = orders.finish()
        single = [until(checkout, order_id) for order_id in (meanwhile, afterwards)]
    assert placed["retries"] == 0  # each order was accepted the first time that it was asked
    check_completed_soon_after(away_at, back_at, [*placed["orders"], *single])
    system.audit()
