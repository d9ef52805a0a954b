"""Long kill tests, both styles mixed: random moments, every process, the supervisor too, a forgetful broker.

Audited after each round.
"""

import os
import random
import signal
from pathlib import Path

import pytest

from tests.support.kills import kill_in_turn
from tests.support.system import PROCESSES, LiveSystem, live_system

ROUNDS = 4
KILLS_A_ROUND = 50
WIPE_AFTER = 9  # kills
WIPES_A_ROUND = 5
ORDERS_A_ROUND = 900
SUPERVISORS = 4
KILLS_BETWEEN = 4
ORDERS = 400


@pytest.mark.timeout(600)
def test_random_kills_under_load_round_after_round(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    jitter = random.Random(seed)
    with live_system(tmp_path) as system:
        for number in range(1, ROUNDS + 1):
            with system.orders(ORDERS_A_ROUND, 15, "--style", "both") as orders:
                done = kill_in_turn(system, KILLS_A_ROUND, every_s=0.7, jitter=jitter, wipe_after=WIPE_AFTER)
                assert orders.running  # all of them under load
                assert (done.kills.total(), done.wipes) == (KILLS_A_ROUND, WIPES_A_ROUND)
                assert set(done.kills) == set(PROCESSES)
                orders.finish()
            system.wait_ready()
            assert system.audit()["accepted"] == number * ORDERS_A_ROUND


@pytest.mark.timeout(300)
def test_a_killed_supervisor_is_started_again_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    with live_system(tmp_path) as system:
        with system.orders(ORDERS, 7, "--style", "both") as orders:
            for _ in range(SUPERVISORS):
                kill_in_turn(system, KILLS_BETWEEN, every_s=0.8)
                _kill_supervisor_and_start_again(system)
            _kill_everything_at_once_and_start_again(system)
            orders.finish()
        assert system.audit()["accepted"] == ORDERS


def _kill_supervisor_and_start_again(system: LiveSystem) -> None:
    """What the killed one leaves running is ended by the next one, which says that all is ready."""
    left = {process.pid for process in system.processes()} - {system.supervisor.pid}
    system.end(signal.SIGKILL)
    system.start()
    now = set(system.announced["pids"].values())
    assert not now & left


def _kill_everything_at_once_and_start_again(system: LiveSystem) -> None:
    """As when the machine stops: the supervisor and all that it started, in one moment."""
    pids = [row["pid"] for row in system.wait_ready().values()]
    for pid in [system.supervisor.pid, *pids]:
        os.kill(pid, signal.SIGKILL)
    system.end(signal.SIGKILL)
    system.start()
