"""The acceptance scenarios to the letter: 500 orders, ten a second, a SIGKILL each second, a balance.

The choreographed ones outlive a broker that twice forgets everything besides.
"""

from pathlib import Path

import pytest

from tests.support.kills import kill_in_turn
from tests.support.system import PROCESSES, live_system

ORDERS = 500
RATE = 10
KILLS = 50  # one each second, for as long as orders come in


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("style", "wipe_after"),
    [
        ("orchestration", None),
        ("choreography", 20),  # kills: two wipes
    ],
)
def test_five_hundred_orders_survive_a_kill_each_second(
    tmp_path: Path, style: str, wipe_after: int | None
) -> None:
    with live_system(tmp_path) as system:
        with system.orders(ORDERS, RATE, "--style", style) as orders:
            done = kill_in_turn(system, KILLS, every_s=ORDERS / RATE / KILLS, wipe_after=wipe_after)
            placed = orders.finish()
        report = system.audit()
        assert set(done.kills) == set(PROCESSES)
        assert done.kills.total() == KILLS
        assert report["accepted"] == placed["accepted"] == ORDERS
        assert report["orders"] == {"in_progress": 0, "needs_attention": 0, "completed": ORDERS}
