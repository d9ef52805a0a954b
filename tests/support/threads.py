"""The states of a process's threads, which Linux alone tells: `T` is stopped."""

from pathlib import Path

import pytest

needs_threads = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="needs Linux, to look at single threads"
)


def states_of_threads(pid: int) -> list[str]:
    """One letter for each thread."""
    tasks = Path(f"/proc/{pid}/task")
    return [stat.read_text().rpartition(")")[2].split()[0] for stat in tasks.glob("*/stat")]
