"""Files of lines that are on disk before anybody acts on them: ids of accepted orders, and repairs.

Lines that are added at the same time share one write and one fsync, off the event loop. Several commands may
append to one file. It refuses half lines: what a crash cut short, readers ignore and the next writer removes.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import FAILED, LabError
from lab.system import System


class SyncedLines:
    """An appender to a file of lines: `async with SyncedLines(path) as lines: await lines.add("id")`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        # At most one for each caller that waits in `add`, so the callers' own bound is its bound.
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the file, making it (mode 0600) where there is none; raise `LabError` if that fails."""
        try:
            self._file = await asyncio.to_thread(_open, self._path)
        except OSError as error:
            raise LabError(f"cannot write {self._path}: {error.strerror}", FAILED) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is being written, and close."""
        if self._writing is not None:
            await self._writing
        os.close(self._file)

    async def add(self, line: str) -> None:
        """Return when the line is on disk; raise `LabError` if it cannot be written (then none of it is)."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_waiting())
        await written

    async def _write_waiting(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            text = "".join(f"{line}\n" for line, _ in group)
            trouble: OSError | None = None
            try:
                await asyncio.to_thread(_append, self._file, text.encode())
            except OSError as error:
                trouble = error
            for _, written in group:
                if written.done():  # the caller was cancelled meanwhile
                    continue
                if trouble is None:
                    written.set_result(None)
                else:
                    message = f"cannot write {self._path}: {trouble.strerror}"
                    written.set_exception(LabError(message, FAILED))


def read_lines(path: Path) -> Sequence[str]:
    """The whole lines of a file but blank ones; raises `OSError`, and `ValueError` if it is not UTF-8."""
    text = path.read_text()
    whole, _, _ = text.rpartition("\n")
    return [line.strip() for line in whole.splitlines() if line.strip()]


def repaired_file(system: System) -> Path:
    """Where `duet repair` notes what it will send again: a service's name and an order id a line."""
    return system.data / "repaired.log"


def read_repaired(system: System) -> dict[str, frozenset[str]]:
    """By service, the orders whose effect was sent again: it is later than the order, and rightly so."""
    file = repaired_file(system)
    repaired: dict[str, set[str]] = {}
    for line in read_lines(file) if file.exists() else ():
        service, _, order_id = line.partition(" ")
        repaired.setdefault(service, set()).add(order_id)
    return {service: frozenset(order_ids) for service, order_ids in repaired.items()}


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _locked(file):
            os.ftruncate(file, _whole_lines_bytes(file))
            os.fsync(file)
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # a new file's name has to survive a power cut, too
        finally:
            os.close(folder)
    except OSError:
        os.close(file)
        raise
    return file


def _append(file: int, text: bytes) -> None:
    with _locked(file):
        before = os.fstat(file).st_size
        try:
            rest = memoryview(text)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, before)
            raise


@contextlib.contextmanager
def _locked(file: int) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _whole_lines_bytes(file: int, chunk_bytes: int = 4096) -> int:
    """The size of the file up to and including its last newline; lines are far shorter than a chunk."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - chunk_bytes)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
