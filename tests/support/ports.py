"""Ports for whole systems in tests: a base whose ports are all free, held until the test is done with it.

Workers and checkouts of this project that run side by side hold their bases by lock files, so that they
never choose the same one. It refuses to look for ever: there are only so many bases.
"""

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"
OFFSETS = (0, 1, 2, 3, 22, 23, 24, 25, 26)
BASES = range(20_000, 31_000, 40)  # below the ports that Linux and macOS give to outgoing connections


@contextmanager
def port_base() -> Iterator[int]:
    """A port base of which all ports that a system needs are free; raise `RuntimeError` if there is none."""
    locks = Path(tempfile.gettempdir()) / f"duet-test-ports-{os.getuid()}"
    locks.mkdir(mode=0o700, exist_ok=True)
    for base in random.sample(BASES, len(BASES)):
        lock = os.open(locks / f"{base}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if all(is_free(base + offset) for offset in OFFSETS):
                yield base
                return
        except BlockingIOError:
            pass  # another test's
        finally:
            os.close(lock)
    raise RuntimeError(f"no free port base from {BASES.start} to {BASES.stop}")


def is_free(port: int) -> bool:
    """Whether nobody listens at this port on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
