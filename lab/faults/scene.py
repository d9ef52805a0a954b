"""What a fault is done to: one running system, and the ways in which the lab troubles it.

Each trouble lasts as long as its block and is taken back on the way out. It refuses to wait for ever: what
does not come back in time is a `LabError`.
"""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.control import call, until_ready
from lab.errors import FAILED, LabError
from lab.system import BROKER, CONDUCTOR, MAILBOX, System
from lab.wire.control import set_weather
from lab.wire.weather import CLEAR, Weather

READY_S = 30.0
LOCK_S = 10.0  # until the database's own writer is between two transactions
MOUNT_S = 10.0
DISK = "disk"
DISK_SIZE = "24m"  # a database of some hundred orders, and its log of at most 4 MiB beside it
FILLER = "filler"
BLOCKS = (bytes(64 * 1024), bytes(4096), b"\0")


@dataclass(frozen=True)
class Scene:
    """A running system with its data below `folder`; `processes` are the names of all that runs in it."""

    system: System
    processes: tuple[str, ...]
    folder: Path
    seed: int

    @property
    def services(self) -> list[str]:
        """What a team would deploy: every process but broker and mailbox, checkout last."""
        own = [name for name in self.processes if name not in (BROKER, MAILBOX)]
        return sorted(own, key=lambda name: name == CONDUCTOR)

    async def command(self, verb: str, name: str) -> None:
        """Do what `duet VERB NAME` does. Raises `LabError`."""
        await asyncio.to_thread(call, self.system, verb, name)

    async def ready(self, name: str) -> None:
        """Return once the process is ready. Raises `LabError` if it is not in time."""
        await until_ready(self.system, name, READY_S)

    @asynccontextmanager
    async def held(self, name: str, by: str, until: str) -> AsyncIterator[None]:
        """The process is stopped until it is started, or paused until it is resumed."""
        await self.command(by, name)
        try:
            yield
        finally:
            await self.command(until, name)

    @asynccontextmanager
    async def weather(self, name: str, weather: Weather) -> AsyncIterator[None]:
        """There is weather on both wires of a service."""
        await asyncio.to_thread(set_weather, self.system, name, weather)
        try:
            yield
        finally:
            await asyncio.to_thread(set_weather, self.system, name, CLEAR)

    @asynccontextmanager
    async def locked(self, name: str) -> AsyncIterator[None]:
        """Somebody holds the write lock of a service's database, as a backup or a shell would."""
        connection = await asyncio.to_thread(_lock, self.system.database_file(name))
        try:
            yield
        finally:
            connection.close()  # which rolls back

    @asynccontextmanager
    async def full(self) -> AsyncIterator[None]:
        """The small disk is full to the last byte."""
        filler = self.folder / DISK / FILLER
        await asyncio.to_thread(_fill, filler)
        try:
            yield
        finally:
            filler.unlink(missing_ok=True)


@contextmanager
def own_disk(folder: Path, name: str) -> Iterator[None]:
    """Give the database of a service of the system below `folder`, not started yet, a small disk of its own.

    A file system in memory stands for the disk, where the caller may mount one. Raises `LabError`.
    """
    disk, system = folder / DISK, System(folder / "duet")
    disk.mkdir()
    system.data.mkdir(mode=0o700)
    options = f"size={DISK_SIZE},mode=0700"
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk))
    try:
        file = system.database_file(name)
        file.symlink_to(disk / file.name)
        yield
    finally:
        _run("umount", "--lazy", str(disk))


def why_no_disk(folder: Path) -> str | None:
    """Why a file system cannot be mounted below `folder`; None if it can be."""
    probe = folder / "mount-probe"
    probe.mkdir(parents=True)
    try:
        if sys.platform != "linux":
            return "a small disk is mounted on Linux only"
        _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(probe))
        _run("umount", "--lazy", str(probe))
    except LabError as error:
        return f"to mount a small disk takes root: {error}"
    finally:
        probe.rmdir()
    return None


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MOUNT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise LabError(f"cannot run {command[0]}: {error}", FAILED) from error
    if done.returncode != 0:
        raise LabError(f"{command[0]}: {done.stderr.strip() or done.returncode}", FAILED)


def _lock(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, timeout=LOCK_S, check_same_thread=False)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        connection.close()
        raise LabError(f"cannot lock {file}: {error}", FAILED) from error
    return connection


def _fill(filler: Path) -> None:
    """Take all the room that there is."""
    with filler.open("wb", buffering=0) as file:
        for block in BLOCKS:
            with contextlib.suppress(OSError):
                while file.write(block):
                    pass
