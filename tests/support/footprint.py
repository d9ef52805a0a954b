"""How long a system takes to start and how much memory it takes idle: `python -m tests.support.footprint`.

It prints figures and asserts none: they are the machine's as much as the system's. PSS shares out what
processes have in common; where the system tells none (macOS), RSS is shown instead.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.support.system import unstarted_system

IDLE_S = 5.0
STARTS = 2  # the second finds the files in the cache


def main() -> None:
    """Start a system twice, leave it idle for a moment, and print what it took."""
    with (
        tempfile.TemporaryDirectory(prefix="duet-footprint-") as folder,
        unstarted_system(Path(folder)) as system,
    ):
        for number in range(1, STARTS + 1):
            started = time.monotonic()
            system.start()
            print(f"start {number}: ready after {time.monotonic() - started:.1f} s")
            if number < STARTS:
                system.end()
        time.sleep(IDLE_S)
        named = {pid: name for name, pid in system.announced["pids"].items()}
        total = 0.0
        for process in system.processes():
            size, kind = _megabytes(process)
            total += size
            print(f"{named.get(process.pid, _command(process)):>12}  {size:6.1f} MB {kind}")
        print(f"{'all':>12}  {total:6.1f} MB")


def _megabytes(process: psutil.Process) -> tuple[float, str]:
    memory: Any = process.memory_full_info()
    proportional = getattr(memory, "pss", None)
    return (memory.rss / 2**20, "RSS") if proportional is None else (proportional / 2**20, "PSS")


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline()[-8:])[:40] if "up" not in process.cmdline() else "supervisor"


if __name__ == "__main__":
    main()
