"""One real system for all tests of the documents, started by the very command of `make run`.

Its data folder is `.duet` of a working folder, and `duet` is on the path there, as the documents have it.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.system import System
from tests.support.system import ROOT, LiveSystem, unstarted_system

HERE = Path(__file__).parent
READY_S = 90.0
END_S = 20.0
SCRIPT_S = 150.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of this folder run on the real processes."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


@dataclass(frozen=True)
class Running:
    """The running system: where it is, what its start printed, and the folder to type commands in."""

    system: System
    said: str
    folder: Path
    environment: dict[str, str]

    def on_its_ports(self, text: str) -> str:
        """A document's text with the default ports replaced by this system's."""
        return re.sub(r"\b80(0[0-3]|26)\b", lambda found: str(self.system.port_base + int(found[1])), text)

    def run(self, *argv: str, text: str) -> str:
        """Feed a script to an interpreter in the folder and return what it printed; fail if it fails."""
        done = subprocess.run(
            argv,
            input=self.on_its_ports(text),
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            cwd=self.folder,
            env=self.environment,
        )
        assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The system of `make run`."""
    folder = tmp_path_factory.mktemp("docs")
    with unstarted_system(folder) as live:
        environment = _environment(live, folder)
        argv = ["duet", "up", "--first-order"]
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=folder, env=environment
        ) as up:
            said = _read_until(up, "Try next", READY_S)
            yield Running(System(folder / ".duet", live.port_base), said, folder, environment)
            up.send_signal(signal.SIGINT)
            assert up.wait(END_S) == 0


def _environment(live: LiveSystem, folder: Path) -> dict[str, str]:
    commands = folder / "bin"
    commands.mkdir()
    duet = commands / "duet"
    duet.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lab "$@"\n')
    duet.chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    return live.environment | {"PATH": path, "DUET_PORT_BASE": str(live.port_base), "PYTHONPATH": str(ROOT)}


def _read_until(process: subprocess.Popen[bytes], mark: str, within_s: float) -> str:
    """All that the process prints, up to a paragraph that begins with the mark."""
    assert process.stdout is not None
    deadline = time.monotonic() + within_s
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while mark not in said.decode(errors="replace").rpartition("\n\n")[0]:
            left_s = deadline - time.monotonic()
            chunk = (
                os.read(process.stdout.fileno(), 65_536) if left_s > 0 and selector.select(left_s) else b""
            )
            if not chunk:
                process.kill()
                raise AssertionError(f"no {mark!r} from duet up: {said.decode(errors='replace')}")
            said += chunk
    return said.decode()
