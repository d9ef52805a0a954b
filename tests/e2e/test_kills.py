"""SIGKILLs at random moments, to every process in turn, under load: the ledger must balance afterwards."""

import random
from pathlib import Path

from tests.support.kills import kill_in_turn
from tests.support.system import PROCESSES, RESUME_SOON, live_system

KILLS = 32  # with those at the named crash points more than forty in one run of the tests


def test_nothing_is_lost_or_repeated_whoever_is_killed_at_random_moments(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    with live_system(tmp_path, RESUME_SOON) as system, system.orders(count=400, rate=14) as orders:
        hit = kill_in_turn(system, KILLS, every_s=0.8, jitter=random.Random(seed))
        assert sum(hit.values()) == KILLS
        assert set(hit) == set(PROCESSES)
        system.wait_ready()
        placed = orders.finish()
        report = system.audit()
        assert report["accepted"] == placed["accepted"] == 400
        assert report["orders"] == {"in_progress": 0, "needs_attention": 0, "completed": 400}
