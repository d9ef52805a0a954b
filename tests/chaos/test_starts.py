"""A system killed or stopped while it starts: nothing is left running, and the next start succeeds."""

import signal
import time
from pathlib import Path

import pytest

from tests.support.system import STOP_S, eventually, unstarted_system

MOMENTS_S = (
    0.1,
    0.3,
    0.5,
    0.7,
    0.9,
    1.2,
)  # from the command line's own start over the migration to the services


def test_a_supervisor_killed_at_any_moment_of_its_start_can_be_started_again(tmp_path: Path) -> None:
    with unstarted_system(tmp_path) as system:
        for moment_s in MOMENTS_S:
            system.begin()
            time.sleep(moment_s)
            system.end(signal.SIGKILL)
        system.start()
        system.duet("order")
        assert system.audit()["accepted"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_at_any_moment_of_the_start_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    with unstarted_system(tmp_path) as system:
        for moment_s in MOMENTS_S:
            system.begin()
            time.sleep(moment_s)
            assert system.end(number) < STOP_S / 2
            eventually(
                lambda: not system.processes(), 5, f"nothing is left of a start stopped at {moment_s} s"
            )
