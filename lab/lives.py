"""The lives of a supervised process: its states, the pauses between them, and an end told in words.

Pure: it starts, ends and waits for nothing.
"""

import contextlib
import signal
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Timing:
    """The supervisor's pauses and bounds, in seconds."""

    backoff_first_s: float = 0.2
    backoff_most_s: float = 5.0
    settled_s: float = 10.0
    poll_unready_s: float = 0.1
    poll_ready_s: float = 1.0
    poll_timeout_s: float = 1.0
    start_s: float = 60.0
    grace_s: float = 10.0
    kill_s: float = 5.0


class State(StrEnum):
    """What a process is doing, or is kept from doing."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    RESTARTING = "restarting"


def next_backoff_s(timing: Timing, previous_s: float, up_s: float, killed_when_ready: bool) -> float:
    """How long to wait before a process is started again: doubling, unless it had settled.

    One that was ready and got a SIGKILL did not fail by itself: somebody tries that out, and waits for it.
    """
    if up_s >= timing.settled_s or killed_when_ready or previous_s == 0:
        return timing.backoff_first_s
    return min(previous_s * 2, timing.backoff_most_s)


def how_it_ended(code: int | None) -> str:
    """An exit code in words; None where there was no process at all."""
    if code is None:
        return "it could not be started"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
