"""The supervisor: the processes of one system, begun together, commanded by name and ended together.

It gives up in one case only: at the first start, when a process cannot become ready. Later it never does.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

from lab.child import Child
from lab.errors import FAILED, LabError
from lab.lives import State, Timing, how_it_ended
from lab.processes import Program, StampBook, log_tail, signal_group, spawn


class Supervisor:
    """The processes of one system; `notice` is told, in a line each, of what happens to them.

    `book` is where the processes are written down for the next `duet up`, should this one be killed.
    The time for the first start counts from here on. `on_end` hears the name of each process that has ended.
    """

    def __init__(
        self,
        programs: Iterable[Program],
        book: StampBook,
        notice: Callable[[str], None],
        timing: Timing | None = None,
        on_end: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._timing = timing or Timing()
        self._book = book
        self._notice = notice
        self._on_end = on_end
        self._children = {one.name: self._child(one) for one in programs}
        self._deadline = time.monotonic() + self._timing.start_s
        self._keepers: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._ending = False

    def rows(self) -> list[dict[str, Any]]:
        """All processes, as `duet ps --json` shows them."""
        return [child.row() for child in self._children.values()]

    def state(self, name: str) -> State:
        """What a process is doing."""
        return self._children[name].state

    async def fresh_rows(self) -> list[dict[str, Any]]:
        """As `rows`, with the readiness of this moment instead of the last poll's."""
        await asyncio.gather(*(child.poll() for child in self._children.values()))
        return self.rows()

    def launch(self, names: Iterable[str]) -> None:
        """Begin to keep the named processes running; to be called once for each."""
        for name in names:
            child = self._children[name]
            self._keepers.append(asyncio.create_task(child.keep(), name=f"keep {name}"))
            self._watchers.append(asyncio.create_task(child.watch(), name=f"watch {name}"))
            for task in (self._keepers[-1], self._watchers[-1]):
                task.add_done_callback(self._tell_defect)

    async def run_once(self, program: Program) -> None:
        """Run a short-lived program to its end; raise `LabError` with its last words where it fails."""
        process = await spawn(program)
        self._book.record(program, process.pid)
        try:
            async with asyncio.timeout(max(0, self._deadline - time.monotonic())):
                code = await process.wait()
        except TimeoutError:
            raise LabError(f"{program.name} took over {self._timing.start_s:.0f} s", FAILED) from None
        finally:
            if process.returncode is None:
                signal_group(process.pid, signal.SIGKILL)
                await process.wait()
            self._book.forget(process.pid)
        if code != 0:
            raise LabError(f"{program.name} failed ({how_it_ended(code)}):\n{log_tail(program.log)}", FAILED)

    async def until_ready(self) -> None:
        """Wait until every process is ready; raise `LabError` naming the one that will not be."""
        while late := [child for child in self._children.values() if not child.ready]:
            for child in late:
                if (why := child.why_hopeless()) is not None:
                    raise LabError(why, FAILED)
            if time.monotonic() >= self._deadline:
                raise LabError(self._why_late(late), FAILED)
            await asyncio.sleep(self._timing.poll_unready_s / 2)

    async def command(self, verb: str, name: str) -> str:
        """Do what a person asked for and return a sentence about it; raise `LabError` where it cannot be."""
        child = self._children.get(name)
        if child is None:
            raise LabError(f"there is no process {name}: it is one of {', '.join(self._children)}")
        said = await child.command(verb)
        self._notice(said)
        return said

    async def deploy(self, program: Program) -> str:
        """Run this program in place of the one of its name, which ends first, or beside the others.

        Raises `LabError` where that one is held stopped or paused, or everything is being ended.
        """
        if self._ending:
            raise LabError("the system is stopping", FAILED)
        child = self._children.get(program.name)
        if child is not None:
            said = await child.deploy(program)
        else:
            self._children[program.name] = self._child(program)
            self.launch([program.name])
            said = f"{program.name} is starting"
        self._notice(said)
        return said

    def reload(self, name: str) -> None:
        """Have a process read its configuration again; one that does not run will anyway."""
        pid = self._children[name].pid
        if pid is not None:
            signal_group(pid, signal.SIGHUP)
            self._notice(f"{name} reads its configuration again")

    async def end(self) -> None:
        """End every process, politely for `grace_s`, then not; afterwards nothing runs any more."""
        self._ending = True
        for child in self._children.values():
            child.end()
        await self._all_gone(self._timing.grace_s)
        for child in self._children.values():
            if child.pid is not None:
                self._notice(f"{child.program.name} has not ended in {self._timing.grace_s:g} s: killed")
                signal_group(child.pid, signal.SIGKILL)
        await self._all_gone(self._timing.kill_s)
        for task in self._keepers + self._watchers:
            task.cancel()
        await asyncio.gather(*self._keepers, *self._watchers, return_exceptions=True)

    def _child(self, program: Program) -> Child:
        return Child(program, self._book, self._notice, self._timing, self._on_end)

    def _why_late(self, late: list[Child]) -> str:
        """A sentence for each that is not ready; the last one's log, since the first waits for the others."""
        *others, last = late
        said = f"is not ready after {self._timing.start_s:.0f} s"
        lines = [f"{child.program.name} {said} ({child.why})" for child in others]
        return "\n".join([*lines, last.obituary(f"{said} ({last.why})")])

    def _tell_defect(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._notice(f"{task.get_name()} has failed, which is a defect of the supervisor: {error!r}")

    async def _all_gone(self, bound_s: float) -> None:
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=bound_s)
