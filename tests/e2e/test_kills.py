"""SIGKILLs at random moments, to every process in turn, under load: the ledger must balance afterwards."""

import random
from pathlib import Path

from tests.support.faults import HEAR_SOON
from tests.support.kills import kill_in_turn
from tests.support.system import PROCESSES, RESUME_SOON, live_system

KILLS = 40
WIPE_AFTER = 12  # kills
WIPES = 3
ORDERS = 700


def test_nothing_is_lost_or_repeated_whoever_is_killed_and_whatever_the_broker_forgets(
    tmp_path: Path,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    with (
        live_system(tmp_path, RESUME_SOON | HEAR_SOON) as system,
        system.orders(ORDERS, 14, "--style", "both") as orders,
    ):
        done = kill_in_turn(system, KILLS, every_s=0.7, jitter=random.Random(seed), wipe_after=WIPE_AFTER)
        assert orders.running  # all of them under load
        assert set(done.kills) == set(PROCESSES)
        assert (done.kills.total(), done.wipes) == (KILLS, WIPES)
        rows = system.wait_ready()
        assert sum(row["restarts"] for row in rows.values()) >= KILLS  # each did end a process
        placed = orders.finish()
        report = system.audit()
        assert report["accepted"] == placed["accepted"] == ORDERS
        assert report["orders"] == {"in_progress": 0, "needs_attention": 0, "completed": ORDERS}
