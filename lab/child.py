"""One supervised process over its lives: started, watched for readiness, held still, started again.

What dies is started again after a pause that doubles while it dies soon, for as long as it is wanted.
A verb that makes no sense in the state that the process is in is refused with a `LabError`.
"""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

from lab.errors import FAILED, LabError
from lab.lives import State, Timing, how_it_ended, next_backoff_s
from lab.look import OK, look
from lab.processes import Program, StampBook, bound_log, log_tail, signal_group, spawn, wait_stopped

BAD_SETTINGS = frozenset({2, 78})  # usage error, and EX_CONFIG of sysexits.h
DEATHS_AT_START = 3  # so many ends with an error before it was ever ready: it will not be
LOG_CHECK_S = 30.0
WHY_LENGTH = 200


class Child:
    """A program that is kept running while it is wanted; `pid` is None while it has no process.

    `why` is what it answers while it is not ready. `wanted` is what a person asked for; `gone` is set while
    there is no process and none is being started; `hurry` ends the pause before a new start. `on_end`
    hears the name whenever a process has ended.
    """

    def __init__(
        self,
        program: Program,
        book: StampBook,
        notice: Callable[[str], None],
        timing: Timing,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.program = program
        self.state = State.RESTARTING
        self.pid: int | None = None
        self.ready = False
        self.why = ""
        self.restarts = 0
        self._book = book
        self._notice = notice
        self._timing = timing
        self._on_end = on_end
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
        seen = await look(self.program.ready_url, self._timing.poll_timeout_s)
        if self.pid != asked or self._is_paused():
            return
        self.ready = seen is not None and seen.status == OK
        self.why = "no answer" if seen is None else seen.body.decode(errors="replace").strip()[:WHY_LENGTH]
        if self.ready and self.state is State.STARTING:
            self.state, self._was_ready, self._deaths_at_start = State.RUNNING, True, 0
            self._notice(f"{self.program.name} is ready at {self.program.url} (process {asked})")

    async def command(self, verb: str) -> str:
        """Do what `verbs` names, and return a sentence about it; raise `LabError` where it cannot be."""
        verbs = {
            "stop": self._stop,
            "start": self._start,
            "pause": self._pause,
            "resume": self._resume,
            "kill": self._kill,
            "restart": self._restart,
            "wipe": self._wipe,
        }
        if verb not in verbs:
            raise LabError(f"there is no command {verb}")
        async with self._verb:
            if self._ending:
                raise LabError("the system is stopping", FAILED)
            return await verbs[verb]()

    async def deploy(self, program: Program) -> str:
        """Run another program in its place; raise `LabError` where a person holds it stopped or paused."""
        async with self._verb:
            if self._ending:
                raise LabError("the system is stopping", FAILED)
            if self.state in (State.STOPPED, State.PAUSED):
                raise LabError(f"{program.name} is {self.state}: let it run first", FAILED)
            self.program = program
            return await self._start_anew()

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
        self._on_end(self.program.name)

    async def _stop(self) -> str:
        if not self._wanted.is_set():
            raise LabError(f"{self.program.name} is stopped already", FAILED)
        await self._bring_down(self._timing.grace_s)
        return f"{self.program.name} is stopped"

    async def _start(self) -> str:
        if not self._gone.is_set():
            raise LabError(f"{self.program.name} is {self.state} already", FAILED)
        self._want_again()
        return f"{self.program.name} is starting"

    async def _pause(self) -> str:
        if self._is_paused():
            raise LabError(f"{self.program.name} is paused already", FAILED)
        pid = self._running()
        signal_group(pid, signal.SIGSTOP)
        self.state, self.ready = State.PAUSED, False
        await asyncio.to_thread(wait_stopped, pid)
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

    async def _restart(self) -> str:
        """For the supervisor itself: only what nobody holds stopped or paused."""
        if self.state is not State.RUNNING:
            raise LabError(f"{self.program.name} is {self.state}, not running", FAILED)
        return await self._start_anew()

    async def _start_anew(self) -> str:
        try:
            await self._bring_down(self._timing.grace_s)
        finally:
            self._want_again()
        return f"{self.program.name} is starting again"

    async def _wipe(self) -> str:
        store = self.program.store
        if store is None:
            raise LabError(f"{self.program.name} has no store that can be wiped: only the broker has")
        try:
            await self._bring_down(grace_s=0)
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(shutil.rmtree, store)
        except OSError as error:
            raise LabError(f"cannot delete {store}: {error}", FAILED) from error
        finally:
            self._want_again()
        return f"{self.program.name} was killed and its store is deleted: it starts empty"

    async def _bring_down(self, grace_s: float) -> None:
        """Want the process no more and end it, politely for `grace_s`; raise `LabError` if it stays."""
        self._wanted.clear()
        self._hurry.set()
        if self.pid is not None and grace_s:
            signal_group(self.pid, signal.SIGTERM, signal.SIGCONT)
        if not await self._is_gone(grace_s) and self.pid is not None:
            signal_group(self.pid, signal.SIGKILL)
        if not await self._is_gone(self._timing.kill_s):
            raise LabError(f"{self.program.name} (process {self.pid}) has not ended yet", FAILED)
        self.state = State.STOPPED

    def _want_again(self) -> None:
        if not self._ending:
            self._wanted.set()
            self._hurry.set()
            if self._gone.is_set():
                self.state = State.STARTING

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
