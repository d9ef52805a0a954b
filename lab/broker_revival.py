"""Starts the system's own broker again when it takes no message any more though its disk has room.

After a full disk nats-server goes on refusing, stream by stream, until it is started anew. Checkout's metric
tells for how long publishing has failed, and the broker's own health of the streams that checkout does not
publish to. It refuses to act while a person holds the broker stopped or paused, while the disk is full, and
more often than its pace allows: where starting again does not help, the pauses double.
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.lives import State
from lab.look import OK, look
from lab.supervisor import Supervisor
from lab.system import BROKER, CONDUCTOR, HOST, System

METRIC = b"publish_failing_seconds "


@dataclass(frozen=True)
class Pace:
    """When the broker is started again: bounds in seconds, and the least free bytes on its disk."""

    look_s: float = 3.0
    look_timeout_s: float = 2.0
    failing_s: float = 30.0
    most_pause_s: float = 480.0
    room_bytes: int = 16 * 1024 * 1024  # two blocks of a stream, and a bit


@dataclass(frozen=True)
class Condition:
    """What one look at the broker found.

    `failing_s`: for how long no event could be published, says checkout; `healthy`: the broker's own word;
    `running`: it has a process that nobody holds still.
    """

    failing_s: float
    healthy: bool
    free_bytes: int
    running: bool


class Revival:
    """Decides; each look is told to `is_due`. It does no I/O. All times are by one monotonic clock."""

    def __init__(self, pace: Pace, now_s: float) -> None:
        self._pace = pace
        self._pause_s = pace.failing_s
        self._not_before = now_s
        self._well_at = now_s

    def is_due(self, now_s: float, seen: Condition) -> bool:
        """Whether to start the broker again now, which then is taken as done."""
        if not seen.running:  # what fails meanwhile tells nothing about the broker that will run
            self._not_before = now_s + self._pace.failing_s
        if seen.healthy or not seen.running:
            self._well_at = now_s
        failing_s = max(seen.failing_s, now_s - self._well_at)
        if failing_s == 0:
            self._pause_s = self._pace.failing_s
        patient = failing_s < self._pace.failing_s or now_s < self._not_before
        if patient or seen.free_bytes < self._pace.room_bytes:
            return False
        self._not_before = now_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._pace.most_pause_s)
        return True


async def revive_broker(
    system: System,
    supervisor: Supervisor,
    notice: Callable[[str], None],
    pace: Pace | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Look at the broker, for ever, and start it again when that is due."""
    pace = pace or Pace()
    revival = Revival(pace, clock())
    while True:
        await sleep(pace.look_s)
        seen = Condition(
            failing_s=await _publish_failing_s(system, pace.look_timeout_s),
            healthy=await _is_healthy(system, pace.look_timeout_s),
            free_bytes=_free_bytes(system.broker_folder),
            running=supervisor.state(BROKER) is State.RUNNING,
        )
        if revival.is_due(clock(), seen):
            notice(f"the broker has taken no message for {pace.failing_s:.0f} s or more: it is started again")
            try:
                await supervisor.command("restart", BROKER)
            except LabError as error:
                notice(str(error))


async def _publish_failing_s(system: System, timeout_s: float) -> float:
    """What checkout's metrics say; 0 where they say nothing, or nothing that can be read."""
    seen = await look(f"{system.url(CONDUCTOR)}/metrics", timeout_s)
    lines = [] if seen is None else seen.body.splitlines()
    for line in lines:
        if line.startswith(METRIC):
            with suppress(ValueError):
                told_s = float(line.removeprefix(METRIC))
                return told_s if told_s > 0 else 0.0  # NaN is not
    return 0.0


async def _is_healthy(system: System, timeout_s: float) -> bool:
    """What the broker says of itself and its streams."""
    seen = await look(f"http://{HOST}:{system.monitoring_port}/healthz", timeout_s)
    return seen is not None and seen.status == OK


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
