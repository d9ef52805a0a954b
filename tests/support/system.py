"""A real system for tests: started by `duet up`, used by `duet`'s own commands, and always cleared away.

Everything that it starts carries a mark in its environment, by which it is found and ended, by process id,
whatever became of the supervisor. Every wait has a bound. It refuses the caller's own settings: only those
that a test gives reach the services, and whether checkout batches, `CHECKOUT_BATCHING=off pytest`.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from lab.change.tree import SWITCH
from lab.control import call
from lab.errors import LabError
from lab.system import System
from tests.support.ports import port_base

ROOT = Path(__file__).resolve().parent.parent.parent
MARK = "DUET_TEST_SYSTEM"
READY_S = 60.0
STOP_S = 20.0
COMMAND_S = 150.0
POLL_S = 0.05
OWN_PREFIXES = ("CHECKOUT_", "EMAIL_", "WAREHOUSE_", "REWARDS_", "MAILBOX_", "DUET_")
SERVICES = ("checkout", "email", "warehouse", "rewards")
PROCESSES = (*SERVICES, "mailbox", "broker")
RESUME_SOON = {"CHECKOUT_RESUME_MIN_S": "0.5", "CHECKOUT_RESUME_MAX_S": "2"}
NOTHING_WRONG = ("lost", "missing", "duplicate", "unexpected", "late", "unfinished")

ORDER: Mapping[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
    "currency": "GBP",
    "lines": [{"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999}],
    "ship_to": {"line1": "12 St James Sq", "city": "London", "postcode": "SW1Y 4JH", "country": "GB"},
}


class LiveSystem:
    """One system on its own ports and folder. `start` may be called again after `end` or a killed supervisor.

    `announced` is the line that `duet up --json` printed at the last start.
    """

    def __init__(self, data: Path, base: int, settings: Mapping[str, str]) -> None:
        self.data = data
        self.port_base = base
        self.announced: dict[str, Any] = {}
        self._state = data.parent / f"{data.name}-state"
        self._state.mkdir(parents=True, exist_ok=True)
        self._errors = self._state / "up.err"
        self._settings = dict(settings)
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def lab(self) -> System:
        """The same system as the lab sees it: ports, files, tokens."""
        return System(self.data, self.port_base)

    @property
    def supervisor(self) -> subprocess.Popen[bytes]:
        """The `duet up` process."""
        assert self._up is not None, "the system was never started"
        return self._up

    @property
    def environment(self) -> dict[str, str]:
        """What `duet` and everything below it is started with."""
        own = {"XDG_STATE_HOME": str(self._state), MARK: str(self.data), "PYTHONSAFEPATH": "1"}
        return surroundings() | own | {"PYTHONPATH": str(ROOT)} | self._settings

    def start(self) -> None:
        """Run `duet up` and return when it says that all is ready; fail with its words if it does not."""
        self.begin()
        line = _first_line(self.supervisor, READY_S)
        if not line:
            self.end(signal.SIGKILL)
            raise AssertionError(f"duet up did not become ready: {self._errors.read_text()[-3000:]}")
        self.announced = json.loads(line)

    def begin(self) -> None:
        """Run `duet up`, and don't wait for anything."""
        with self._errors.open("ab") as target:
            self._up = subprocess.Popen(
                self._command("up", "--json"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=target,
                cwd=ROOT,
                env=self.environment,
            )

    def end(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Signal the supervisor and wait for its end; how many seconds that took."""
        started = time.monotonic()
        self.supervisor.send_signal(number)
        self.supervisor.wait(STOP_S)
        if self.supervisor.stdout is not None:
            self.supervisor.stdout.close()
        return time.monotonic() - started

    def duet(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command of `duet` on this system to its end and return what it printed."""
        done = subprocess.run(
            self._command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            cwd=ROOT,
            env=self.environment,
        )
        said = f"duet {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == exit_code, said
        return done.stdout

    @contextmanager
    def orders(self, count: int, rate: float, *options: str) -> Iterator["Orders"]:
        """`duet order` beside whatever the test does meanwhile; it is ended with the context."""
        accepted = self._state / "accepted.log"
        arguments = ("--count", str(count), "--rate", str(rate), "--accepted", str(accepted), "--json")
        with subprocess.Popen(
            self._command("order", *arguments, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=self.environment,
        ) as process:
            try:
                yield Orders(process, count)
            finally:
                if process.poll() is None:
                    process.kill()

    def audit(self, wait_s: int = 60) -> dict[str, Any]:
        """`duet audit` over everything that `orders` and the default file hold; fails unless it balances."""
        chosen = self._state / "accepted.log"
        options = ("--accepted", str(chosen)) if chosen.exists() else ()
        report: dict[str, Any] = json.loads(self.duet("audit", "--wait", str(wait_s), "--json", *options))
        assert report["balances"] is True, report
        assert [report[verdict] for verdict in NOTHING_WRONG] == [0] * len(NOTHING_WRONG), report
        return report

    def rows(self) -> dict[str, dict[str, Any]]:
        """What `duet ps` shows, by process name; raises `LabError` where no supervisor answers."""
        return {row["name"]: row for row in call(self.lab, "ps")}

    def wait_ready(self, *names: str, but: int | None = None, within_s: float = 30.0) -> dict[str, Any]:
        """Wait until the named processes (default: all) are ready and none has the id `but`; their rows."""

        def ready() -> dict[str, Any] | None:
            rows = {name: row for name, row in self.rows().items() if not names or name in names}
            fresh = all(row["ready"] and row["pid"] != but for row in rows.values())
            return rows if fresh else None

        rows: dict[str, Any] = eventually(ready, within_s, f"{' '.join(names) or 'all'} ready")
        return rows

    def kill(self, name: str, but: int | None = None) -> int:
        """SIGKILL a process once it is ready; the id of the killed one."""
        pid: int = self.wait_ready(name, but=but)[name]["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    def wipe(self) -> None:
        """Kill the broker once it is ready and delete its streams, as a person would; it starts empty."""
        self.wait_ready("broker")
        self.duet("wipe", "broker")

    @contextmanager
    def client(self, name: str) -> Iterator[httpx.Client]:
        """An HTTP client of a service, or of the mailbox's page, with the operator's token."""
        headers = {"Authorization": f"Bearer {self.lab.tokens().operator}"}
        with httpx.Client(base_url=self.lab.url(name), headers=headers, timeout=40, trust_env=False) as http:
            yield http

    def processes(self) -> list[psutil.Process]:
        """Everything that runs because of this system, wherever it hangs in the tree of processes."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get(MARK) == str(self.data)
                if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clear_away(self) -> None:
        """End whatever still runs, politely at first."""
        if self._up is not None and self._up.poll() is None:
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait(STOP_S)
        left = self.processes()
        for process in left:
            process.kill()  # psutil makes sure that the id is still the same process's
        psutil.wait_procs(left, timeout=STOP_S)

    def _command(self, *arguments: str) -> list[str]:
        where = ("--port-base", str(self.port_base), "--data", str(self.data))
        return [sys.executable, "-m", "lab", *arguments, *where]


class Orders:
    """A `duet order` that runs."""

    def __init__(self, process: subprocess.Popen[bytes], count: int) -> None:
        self._process = process
        self._count = count

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def finish(self) -> dict[str, Any]:
        """Wait for the end and return the JSON document; fails unless all orders were accepted."""
        output, errors = self._process.communicate(timeout=COMMAND_S)
        assert self._process.returncode == 0, f"{errors.decode()}\n{output.decode()[:2000]}"
        document: dict[str, Any] = json.loads(output)
        assert document["accepted"] == self._count, document
        return document


@contextmanager
def live_system(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[LiveSystem]:
    """A started system with its data below `folder`; `settings` go to the services, by prefix."""
    with unstarted_system(folder, settings) as system:
        system.start()
        yield system


@contextmanager
def unstarted_system(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[LiveSystem]:
    """The same, for a test that starts it itself."""
    with port_base() as base:
        system = LiveSystem(folder / "duet", base, settings or {})
        try:
            yield system
        finally:
            system.clear_away()


def eventually(probe: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of `probe`; fails after `within_s` seconds. Where nobody listens yet, try on."""
    deadline = time.monotonic() + within_s
    trouble: LabError | httpx.TransportError | None = None
    while time.monotonic() < deadline:
        try:
            if value := probe():
                return value
            trouble = None
        except (LabError, httpx.TransportError) as error:
            trouble = error
        time.sleep(POLL_S)
    raise AssertionError(f"not within {within_s:g} s: {what}" + (f" ({trouble})" if trouble else ""))


def surroundings() -> dict[str, str]:
    """The caller's environment without settings of services, but for `SWITCH`."""
    return {
        key: value for key, value in os.environ.items() if key == SWITCH or not key.startswith(OWN_PREFIXES)
    }


def _first_line(process: subprocess.Popen[bytes], within_s: float) -> bytes:
    """The first line of its standard output; empty if it ended, or the time is up."""
    assert process.stdout is not None
    deadline = time.monotonic() + within_s
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if selector.select(max(0.0, deadline - time.monotonic())):
            return process.stdout.readline()
    return b""
