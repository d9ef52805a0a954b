"""Named points at which a fault test can kill the process, as a power cut would.

Armed only by a file named in the settings; without one, `reach` is a comparison with None.
The file is removed before the kill, so the restarted process gets past the point.
"""

import os
import signal
from pathlib import Path

_armed_by: Path | None = None


def arm(crash_file: Path | None) -> None:
    """Watch this file; it holds the name of one point."""
    global _armed_by  # noqa: PLW0603 - one switch for the process, set once by its main
    _armed_by = crash_file


def reach(point: str) -> None:
    """Die here by SIGKILL if the file names this point."""
    if _armed_by is None:
        return
    try:
        if _armed_by.read_text().strip() != point:
            return
        _armed_by.unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
