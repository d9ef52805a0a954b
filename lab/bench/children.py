"""The bench's child processes: started in sessions of their own, ended by process id whatever happens.

A child that does not get ready in time, or ends by itself, is an error that shows the tail of its log.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import lab
from lab.bench.wire import MalformedMessage, Reply, ReplyReader, encode_request
from lab.errors import FAILED, LabError

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
FETCH_TIMEOUT_S = 5.0
LARGEST_LINE_BYTES = 1024 * 1024
LOG_TAIL_LINES = 15

ROOT = Path(str(lab.__path__[0])).parent


class BenchError(LabError):
    """The bench cannot go on; the message says why in a line or with a log's tail."""

    def __init__(self, message: str) -> None:
        super().__init__(message, FAILED)


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process and the file that it logs to."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def ask(self, line: bytes, timeout_s: float) -> Any:
        """Writes `line`, if not empty, to the child and reads one line of JSON. Raises BenchError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                if line:
                    self.process.stdin.write(line + b"\n")
                    await self.process.stdin.drain()
                answer = await self.process.stdout.readline()
        except (TimeoutError, OSError) as error:
            raise self.trouble(f"gave no answer within {timeout_s:.0f} s") from error
        if not answer:
            raise self.trouble("ended")
        return orjson.loads(answer)

    def trouble(self, what: str) -> BenchError:
        """An error about this child, with the tail of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return BenchError("\n".join([f"{self.name} {what}", *lines]))


@asynccontextmanager
async def running(
    name: str,
    module: str,
    *arguments: str,
    env: Mapping[str, str],
    log: Path,
    talks: bool = False,
    stop_timeout_s: float = STOP_TIMEOUT_S,
    root: Path = ROOT,
) -> AsyncIterator[Child]:
    """Runs `python -m module` of the tree at `root`, and ends it on the way out.

    One that `talks` can be asked by `Child.ask`.
    """
    pipe = asyncio.subprocess.PIPE
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            stdin=pipe if talks else asyncio.subprocess.DEVNULL,
            stdout=pipe if talks else output,
            stderr=output,
            env={**env, "PYTHONPATH": str(root), "PYTHONSAFEPATH": "1"},  # whatever is in the current folder
            start_new_session=True,
            limit=LARGEST_LINE_BYTES,
        )
    try:
        yield Child(name, process, log)
    finally:
        await _end(process, stop_timeout_s)


async def _end(process: asyncio.subprocess.Process, timeout_s: float) -> None:
    if process.returncode is not None:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except BaseException as error:  # a second Ctrl-C must not leave it behind either
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, TimeoutError):
            raise
        await process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listened on a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def wait_ready(child: Child, port: int, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Returns once the child answers `GET /readyz` with 200. Raises BenchError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if child.process.returncode is not None:
            raise child.trouble(f"ended with exit code {child.process.returncode}")
        with contextlib.suppress(BenchError):
            if (await fetch(port, "/readyz")).status == 200:
                return
        await asyncio.sleep(0.05)
    raise child.trouble(f"was not ready within {timeout_s:.0f} s")


async def fetch(port: int, path: str, token: str | None = None) -> Reply:
    """One GET on a connection of its own. Raises BenchError if it gets no reply."""
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            return await _fetch(port, encode_request("GET", path, port, token=token))
    except (OSError, TimeoutError, MalformedMessage) as error:
        reason = str(error) or type(error).__name__
        raise BenchError(f"no reply to GET {path} on port {port}: {reason}") from error


async def _fetch(port: int, request: bytes) -> Reply:
    reader = ReplyReader()
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    try:
        outgoing.write(request)
        while data := await incoming.read(65536):
            if replies := reader.feed(data):
                return replies[0]
    finally:
        outgoing.close()
    raise MalformedMessage("the connection ended before the reply did")
