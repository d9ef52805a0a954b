"""`duet up` on a terminal that goes away: a window that is closed, a connection that is lost."""

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time

import psutil

from tests.lab.test_supervisor import REPOSITORY, Up, up

__all__ = ["up"]

READY_WITHIN_S = 30


def test_a_terminal_that_is_closed_ends_everything(up: Up) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lab", "up", *up.place()],
        cwd=REPOSITORY,
        env=up.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + READY_WITHIN_S
    while b"all is ready" not in said and time.monotonic() < deadline:
        if select.select([ours], [], [], 0.5)[0]:
            said += os.read(ours, 65_536)
    children = psutil.Process(process.pid).children(recursive=True)
    os.close(ours)
    assert len(children) >= 3
    assert process.wait(20) == 0
    assert not [child for child in children if child.is_running() and child.status() != "zombie"]
