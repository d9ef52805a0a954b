"""A real nats-server of a test's own, on a port of its own: it can be killed, paused, wiped and come back.

It stores below a folder and syncs what it is sent, as the embedded broker does, unless told otherwise.
Refuses to wait for ever: if it does not come up within ten seconds, that is an error.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.processes import wait_stopped

HOST = "127.0.0.1"
START_TIMEOUT_S = 10.0


class Broker:
    """A running nats-server. `authorization` is that block of its configuration, if there is one."""

    def __init__(
        self, folder: Path, *, authorization: str = "", extra: str = "", sync_interval: str = "always"
    ) -> None:
        self.port = free_port()
        self.store = folder / "store"
        self._config = folder / "nats.conf"
        self._config.write_text(
            f"listen: {HOST}:{self.port}\n"
            f'jetstream {{ store_dir: "{self.store}", sync_interval: {sync_interval}, max_file_store: 1G }}\n'
            f"{f'authorization {{ {authorization} }}' if authorization else ''}\n{extra}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process while it is up."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        server = Path(sys.executable).with_name("nats-server")
        with (self._config.parent / "nats.log").open("ab") as log:
            self._process = subprocess.Popen([server, "-c", self._config], stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with socket.create_connection((HOST, self.port), timeout=1) as probe:
                    if probe.recv(5) == b"INFO ":
                        return
            except OSError:
                pass
            time.sleep(0.01)
        raise RuntimeError((self._config.parent / "nats.log").read_text()[-2_000:])

    def kill(self) -> None:
        """As a power cut would, but for the page cache."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Killed, and up again on the same port with what it had stored."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Killed, its store deleted, up again."""
        self.kill()
        shutil.rmtree(self.store, ignore_errors=True)
        self.start()

    def pause(self) -> None:
        """It takes connections, and says nothing."""
        self._signal(signal.SIGSTOP)
        wait_stopped(self.pid)

    def resume(self) -> None:
        """After `pause`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _end(self, number: int) -> None:
        self._signal(number)
        assert self._process is not None
        self._process.wait(10)
        self._process = None


@contextmanager
def running_broker(folder: Path, *, authorization: str = "", extra: str = "") -> Iterator[Broker]:
    """A broker that is up, until the block ends."""
    broker = Broker(folder, authorization=authorization, extra=extra)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
