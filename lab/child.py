"""One supervised process over its lives: started, watched for readiness, held still, started again.

What dies is started again after a pause that doubles while it dies soon, for as long as it is wanted.
A verb that makes no sense in the state that the process is in is refused with a `LabError`.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from lab.errors import FAILED, LabError
from lab.processes import Program, StampBook, bound_log, log_tail, signal_group, spawn

BAD_SETTINGS = frozenset({2, 78})  # usage error, and EX_CONFIG of sysexits.h
DEATHS_AT_START = 3  # so many ends with an error before it was ever ready: it will not be
LOG_CHECK_S = 30.0


@dataclass(frozen=True)
class Timing:
    """The supervisor's pauses and bounds, in seconds."""

    backoff_first_s: float = 0.2
    backoff_most_s: float = 5.0
    settled_s: float = 10.0
    poll_unready_s: float = 0.1
    poll_ready_s: float = 1.0
    poll_timeout_s: float = 1.0
    start_s: float = 60.0
    grace_s: float = 10.0
    kill_s: float = 5.0


class State(StrEnum):
    """What a process is doing, or is kept from doing."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    RESTARTING = "restarting"


def next_backoff_s(timing: Timing, previous_s: float, up_s: float, killed_when_ready: bool) -> float:
    """How long to wait before a process is started again: doubling, unless it had settled.

    One that was ready and got a SIGKILL did not fail by itself: somebody tries that out, and waits for it.
    """
    if up_s >= timing.settled_s or killed_when_ready or previous_s == 0:
        return timing.backoff_first_s
    return min(previous_s * 2, timing.backoff_most_s)


async def is_ready(url: str, timeout_s: float) -> bool:
    """Whether `GET {url}/readyz` answers 200 in time."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    request = f"GET /readyz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, limit=4096)
            try:
                writer.write(request.encode())
                status = await reader.readline()
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.split(b" ")[1:2] == [b"200"]


def how_it_ended(code: int | None) -> str:
    """An exit code in words; None where there was no process at all."""
    if code is None:
        return "it could not be started"
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


class Child:
    """A program that is kept running while it is wanted; `pid` is None while it has no process.

    `wanted` is what a person asked for; `gone` is set while there is no process and none is being started;
    `hurry` ends the pause before a new start.
    """

    def __init__(
        self, program: Program, book: StampBook, notice: Callable[[str], None], timing: Timing
    ) -> None:
        self.program = program
        self.state = State.RESTARTING
        self.pid: int | None = None
        self.ready = False
        self.restarts = 0
        self._book = book
        self._notice = notice
        self._timing = timing
        self._was_ready = False
        self._ending = False
        self._deaths_at_start = 0
        self._exit_code: int | None = None
        self._started_at = 0.0
        self._wanted = asyncio.Event()
        self._gone = asyncio.Event()
        self._hurry = asyncio.Event()
        self._verb = asyncio.Lock()
        self._wanted.set()
        self._gone.set()

    def row(self) -> dict[str, Any]:
        """The process as `duet ps --json` shows it; `uptime_s` is None while it does not run."""
        return {
            "name": self.program.name,
            "state": str(self.state),
            "pid": self.pid,
            "ready": self.ready,
            "restarts": self.restarts,
            "url": self.program.url,
            "uptime_s": None if self.pid is None else round(time.monotonic() - self._started_at, 1),
        }

    def why_hopeless(self) -> str | None:
        """Why it will never be ready, if that is clear: bad settings, or it ended again and again."""
        bad_settings = self._exit_code in BAD_SETTINGS and self._deaths_at_start > 0
        if bad_settings or self._deaths_at_start >= DEATHS_AT_START:
            return self.obituary(f"did not start ({how_it_ended(self._exit_code)})")
        return None

    def obituary(self, what: str) -> str:
        """A sentence about the process and the end of its log."""
        log = self.program.log
        return f"{self.program.name} {what}; {log} ends:\n{log_tail(log)}"

    async def keep(self) -> None:
        """Keep the process running while it is wanted, until `end`."""
        backoff_s = 0.0
        while not self._ending:
            await self._wanted.wait()
            code = await self._live()
            if self._ending or not self._wanted.is_set():
                continue
            up_s = time.monotonic() - self._started_at
            killed = code == -signal.SIGKILL and self._was_ready
            backoff_s = next_backoff_s(self._timing, backoff_s, up_s, killed)
            self.restarts += 1
            self._hurry.clear()
            self._notice(
                f"{self.program.name} ended ({how_it_ended(code)}), starting it again in {backoff_s:.1f} s"
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._hurry.wait()

    async def watch(self) -> None:
        """Poll readiness and bound the log, until `end`."""
        checked = time.monotonic()
        while not self._ending:
            await self.poll()
            if time.monotonic() - checked > LOG_CHECK_S:
                checked = time.monotonic()
                with contextlib.suppress(OSError):  # a full disk: the next check tries again
                    bound_log(self.program.log)
            await asyncio.sleep(self._timing.poll_ready_s if self.ready else self._timing.poll_unready_s)

    async def poll(self) -> None:
        """Find out whether the process is ready now; an answer that comes after its end doesn't count."""
        asked = self.pid
        if asked is None or self._is_paused():
            return
        ready = await is_ready(self.program.url, self._timing.poll_timeout_s)
        if self.pid != asked or self._is_paused():
            return
        self.ready = ready
        if ready and self.state is State.STARTING:
            self.state, self._was_ready, self._deaths_at_start = State.RUNNING, True, 0
            self._notice(f"{self.program.name} is ready at {self.program.url} (process {asked})")

    async def command(self, verb: str) -> str:
        """Do `stop`, `start`, `pause`, `resume` or `kill`, and return a sentence about it."""
        verbs = {
            "stop": self._stop,
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
            "kill": self._kill,
        }
        if verb not in verbs:
            raise LabError(f"there is no command {verb}")
        async with self._verb:
            if self._ending:
                raise LabError("the system is stopping", FAILED)
            return await verbs[verb]()

    def end(self) -> None:
        """Want it no more, for good; `keep` returns once its process has ended."""
        self._ending = True
        self._wanted.set()
        self._hurry.set()
        if self.pid is not None:
            signal_group(self.pid, signal.SIGTERM, signal.SIGCONT)

    async def _live(self) -> int | None:
        """One life: start the process, wait for its end, return its exit code (None: it never started)."""
        self._gone.clear()
        self._started_at = time.monotonic()
        self._was_ready = False
        self.state = State.STARTING
        try:
            process = await spawn(self.program)
        except OSError as error:
            self._notice(f"cannot start {self.program.name}: {error}")
            self._buried(None)
            return None
        self.pid = process.pid
        self._book.record(self.program, process.pid)
        if self._ending or not self._wanted.is_set():
            signal_group(process.pid, signal.SIGTERM)
        code = await process.wait()
        self._book.forget(process.pid)
        self._buried(code)
        return code

    def _buried(self, code: int | None) -> None:
        self.pid, self.ready, self._exit_code = None, False, code
        if not self._was_ready and (code is None or code > 0):
            self._deaths_at_start += 1
        self.state = State.RESTARTING if self._wanted.is_set() else State.STOPPED
        self._gone.set()

    async def _stop(self) -> str:
        if not self._wanted.is_set():
            raise LabError(f"{self.program.name} is stopped already", FAILED)
        self._wanted.clear()
        self._hurry.set()
        if self.pid is not None:
            signal_group(self.pid, signal.SIGTERM, signal.SIGCONT)
        if not await self._is_gone(self._timing.grace_s) and self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)
        if not await self._is_gone(self._timing.kill_s):
            raise LabError(f"{self.program.name} (process {self.pid}) has not ended yet", FAILED)
        self.state = State.STOPPED
        return f"{self.program.name} is stopped"

    async def _start(self) -> str:
        if not self._gone.is_set():
            raise LabError(f"{self.program.name} is {self.state} already", FAILED)
        self._wanted.set()
        self._hurry.set()
        self.state = State.STARTING
        return f"{self.program.name} is starting"

    async def _pause(self) -> str:
        if self._is_paused():
            raise LabError(f"{self.program.name} is paused already", FAILED)
        signal_group(self._running(), signal.SIGSTOP)
        self.state, self.ready = State.PAUSED, False
        return f"{self.program.name} is paused"

    async def _resume(self) -> str:
        if not self._is_paused():
            raise LabError(f"{self.program.name} is {self.state}, not paused", FAILED)
        signal_group(self._running(), signal.SIGCONT)
        self.state = State.RUNNING if self._was_ready else State.STARTING
        return f"{self.program.name} goes on"

    async def _kill(self) -> str:
        pid = self._running()
        signal_group(pid, signal.SIGKILL)
        if not await self._is_gone(self._timing.kill_s):
            raise LabError(f"{self.program.name} (process {pid}) has not ended yet", FAILED)
        return f"{self.program.name} (process {pid}) was killed"

    def _is_paused(self) -> bool:
        return self.state is State.PAUSED

    def _running(self) -> int:
        if self.pid is None:
            raise LabError(f"{self.program.name} is {self.state}: it has no process", FAILED)
        return self.pid

    async def _is_gone(self, bound_s: float) -> bool:
        try:
            async with asyncio.timeout(bound_s):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True
