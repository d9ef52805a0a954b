"""A broker that is frozen for half a minute: orders are accepted all the while, and complete after it."""

import time
from pathlib import Path

from tests.support.faults import in_progress, paused
from tests.support.system import eventually, live_system

AWAY_S = 30.0
WITHIN_S = 30.0
ORDERS = 300
RATE = 10


def test_orders_are_accepted_while_the_broker_is_frozen_and_complete_soon_after(tmp_path: Path) -> None:
    with live_system(tmp_path) as system, system.client("checkout") as checkout:
        with system.orders(ORDERS, RATE, "--style", "both") as orders:
            eventually(lambda: in_progress(checkout), 20, "orders come in")
            with paused(system, "broker"):
                time.sleep(AWAY_S)
            eventually(lambda: not in_progress(checkout), WITHIN_S, "no order is unfinished")
            placed = orders.finish()
        assert placed["retries"] == 0  # each order was accepted the first time that it was asked
        assert placed["completed"] == ORDERS
        system.audit()
