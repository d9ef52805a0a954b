"""The processes of a system: what to run, how they are started and signalled, and which ones were left over.

Every process leads a session and group of its own, so that a Ctrl-C in the terminal reaches the supervisor
only. What a killed supervisor left is known by the mark in its environment, or by start time and command line
as they were written down: an id that the system has given to somebody else is left alone.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.broker import find_server
from lab.environment import Behind, make_environment
from lab.errors import FAILED, LabError
from lab.system import BROKER, HOST, MAILBOX, Mail, System, project_root

LOG_LIMIT_BYTES = 5 * 1024 * 1024
STAMP_TOLERANCE_S = 2.0  # the boot time that start stamps are counted from moves when the clock is set
LEFTOVER_GRACE_S = 5.0
POLL_S = 0.05
STOPPED_WITHIN_S = 5.0
STOPPED_POLL_S = 0.001
OPERATOR_SETTINGS = "DUET_NATS"  # prefix of what lab/broker.py reads
MARK = "DUET_SUPERVISED"  # in each process's environment: its name and the data folder


@dataclass(frozen=True)
class Program:
    """What to run: its name, command line, whole environment, log file and the base URL that it serves.

    `GET ready_url` answers 200 once it is ready. `store` is what a wipe deletes; None: it cannot be wiped.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    url: str
    ready_url: str = ""
    store: Path | None = None


@dataclass(frozen=True)
class Stamp:
    """A process that was started: enough to know it again, and not to take another one for it."""

    name: str
    pid: int
    started: float
    argv: tuple[str, ...]


def make_programs(system: System, mail: Mail, behind: Mapping[str, Behind] | None = None) -> list[Program]:
    """The services of the system, for `smtp` the mailbox too, and the broker if it is the system's own.

    `behind`: by name, the services that stand behind proxies; their readiness is asked for directly.
    """
    settings = make_environment(system, mail, behind)
    hidden = {name: f"http://{HOST}:{each.port}" for name, each in (behind or {}).items()}
    mailbox = {
        "MAILBOX_HOST": HOST,
        "MAILBOX_PORT": str(system.port(MAILBOX)),
        "MAILBOX_SMTP_PORT": str(system.smtp_port),
        "MAILBOX_FOLDER": str(system.mail_folder),
    }
    mailboxes = [_program(system, MAILBOX, "lab.mailbox", mailbox)] if mail == "smtp" else []
    services = [
        _program(system, s.name, s.package, settings[s.name], hidden.get(s.name)) for s in system.services
    ]
    return [*services, *mailboxes, *([_broker(system)] if system.nats_url is None else [])]


def make_migration(system: System, mail: Mail) -> Program:
    """The short-lived process that brings every service's database to its newest schema."""
    merged = {key: value for told in make_environment(system, mail).values() for key, value in told.items()}
    argv = (sys.executable, "-m", "servicekit.migrate", *(service.package for service in system.services))
    environment = _surroundings((), merged) | {MARK: _mark("migrate", system.data)}
    return Program("migrate", argv, environment, system.log_file("migrate"), "")


async def spawn(program: Program) -> asyncio.subprocess.Process:
    """Start the program, its output appended to its log; raise `OSError` where that cannot be done."""
    bound_log(program.log)
    log = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *program.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=program.environment,
            start_new_session=True,
        )
    finally:
        os.close(log)


def signal_group(pid: int, *numbers: signal.Signals) -> None:
    """Send signals to the process group that `pid` leads; one that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        for number in numbers:
            os.killpg(pid, number)


def wait_stopped(pid: int) -> None:
    """Wait until SIGSTOP has reached every thread of a child of ours, which takes it some milliseconds.

    Raises `LabError` where it has ended instead, or does not stop within five seconds.
    """
    deadline = time.monotonic() + STOPPED_WITHIN_S
    while not _is_stopped(pid):
        if time.monotonic() > deadline:
            raise LabError(f"process {pid} does not stop", FAILED)
        time.sleep(STOPPED_POLL_S)


class StampBook:
    """The processes that run now, kept in a file: whom to end, should the supervisor be killed."""

    def __init__(
        self, file: Path, port_base: int, notice: Callable[[str], None], nats_url: str | None = None
    ) -> None:
        self._file = file
        self._place = {"port_base": port_base, "nats_url": nats_url}
        self._notice = notice
        self._stamps: dict[int, Stamp] = {}

    def record(self, program: Program, pid: int) -> None:
        """Write down a process that was just started."""
        import psutil

        with contextlib.suppress(psutil.Error):  # gone already: nothing to end
            started = psutil.Process(pid).create_time()
            self._stamps[pid] = Stamp(program.name, pid, started, program.argv)
        self._write()

    def forget(self, pid: int) -> None:
        """Strike out a process that has ended."""
        self._stamps.pop(pid, None)
        self._write()

    def _write(self) -> None:
        told = {**self._place, "processes": [vars(one) for one in self._stamps.values()]}
        draft = self._file.with_suffix(".tmp")
        try:
            draft.write_text(json.dumps(told))
            draft.replace(self._file)
        except OSError as error:  # a full disk must not end the supervision
            self._notice(f"cannot write {self._file}: {error}")


def end_leftovers(file: Path, data: Path) -> list[str]:
    """End what a killed supervisor of the folder `data` left running, and return the names.

    Takes at most about ten seconds; raises `LabError` where a process cannot be ended.
    """
    left = _find_leftovers(file, data)
    for numbers in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
        for _, process in left:
            if _is_alive(process):
                signal_group(process.pid, *numbers)
        deadline = time.monotonic() + LEFTOVER_GRACE_S
        while any(_is_alive(process) for _, process in left) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    if stuck := [f"{name} (process {process.pid})" for name, process in left if _is_alive(process)]:
        raise LabError(f"a killed supervisor left {', '.join(stuck)}, which cannot be ended", FAILED)
    return [name for name, _ in left]


def bound_log(log: Path) -> None:
    """Move a log over the limit aside, its end into one older file; its writers append to the emptied one."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        older = log.with_name(f"{log.name}.1")
        with log.open("rb") as source, older.open("wb") as target:
            source.seek(-LOG_LIMIT_BYTES, os.SEEK_END)
            shutil.copyfileobj(source, target)
        os.truncate(log, 0)


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for a person to read."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, log.stat().st_size - 16 * 1024))
            return "\n".join(source.read().decode(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


def _program(
    system: System, name: str, package: str, settings: dict[str, str], hidden_url: str | None = None
) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-m", package),
        environment=_surroundings(_strangers(system, name), settings) | {MARK: _mark(name, system.data)},
        log=system.log_file(name),
        url=system.url(name),
        ready_url=f"{hidden_url or system.url(name)}/readyz",
    )


def _broker(system: System) -> Program:
    return Program(
        name=BROKER,
        argv=(str(find_server()), "--config", str(system.broker_config_file)),
        environment=_surroundings(_strangers(system, BROKER), {}) | {MARK: _mark(BROKER, system.data)},
        log=system.log_file(BROKER),
        url=system.broker_url,
        ready_url=f"http://{HOST}:{system.monitoring_port}/healthz?js-server-only=true",
        store=system.broker_folder / "jetstream",  # which nats-server makes below its `store_dir`
    )


def _strangers(system: System, name: str) -> tuple[str, ...]:
    """Whose settings a process is not to see: the others' and the operator's at the broker."""
    everybody = [*(service.name for service in system.services), MAILBOX, OPERATOR_SETTINGS]
    return tuple(other for other in everybody if other != name)


def _mark(name: str, data: Path) -> str:
    return f"{name} {data}"


def _surroundings(strangers: tuple[str, ...], settings: dict[str, str]) -> dict[str, str]:
    """Our own environment without other processes' settings and secrets, then what `duet up` decides."""
    foreign = tuple(f"{name.upper()}_" for name in strangers)
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(foreign) and key.removesuffix("_FILE") not in settings
    }
    roots = dict.fromkeys([project_root(), Path(__file__).resolve().parent.parent])
    site = Path(sysconfig.get_paths()["purelib"]).resolve()  # on the path, behind the standard library
    paths = [str(root) for root in roots if root != site] + [kept.get("PYTHONPATH", "")]
    path = os.pathsep.join(part for part in paths if part)
    return kept | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | settings


def _find_leftovers(file: Path, data: Path) -> list[tuple[str, Any]]:
    """Names and processes: those written down, and those marked that it had no time to write down."""
    import psutil

    found: dict[int, tuple[str, psutil.Process]] = {}
    for one in _read_stamps(file):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(one.pid)
            same_time = abs(process.create_time() - one.started) <= STAMP_TOLERANCE_S
            if same_time and tuple(process.cmdline()) == one.argv:
                found[one.pid] = (one.name, process)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # somebody else's, or gone
            name, _, folder = process.environ().get(MARK, "").partition(" ")
            if folder == str(data) and os.getpgid(process.pid) == process.pid:
                found[process.pid] = (name, process)
    return list(found.values())


def _read_stamps(file: Path) -> list[Stamp]:
    try:
        told: Any = json.loads(file.read_text())
        return [
            Stamp(str(one["name"]), int(one["pid"]), float(one["started"]), tuple(one["argv"]))
            for one in told["processes"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _is_stopped(pid: int) -> bool:
    import psutil

    try:
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is not None
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)  # macOS stops a process as a whole
    except (ChildProcessError, psutil.Error) as error:
        raise LabError(f"process {pid} has ended", FAILED) from error


def _is_alive(process: Any) -> bool:
    """Whether a process that is no child of ours still runs; a zombie that nobody buries does not."""
    import psutil

    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
