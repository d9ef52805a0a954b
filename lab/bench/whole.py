"""A whole system for a bench: started by `duet up`, as a person would, on ports and a folder of its own.

Its memory and its processes are read from the supervisor's tree, so that whatever the system comes to consist
of is counted. It refuses the caller's own settings, and a run in which a process died: its figures are not
the system's.
"""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from lab.bench.children import ROOT, BenchError, Child, fetch, running
from lab.client import Patience
from lab.control import call
from lab.reading import wait_until_quiet
from lab.system import HOST, MAILBOX_OFFSET, Mail, System, discover_services

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0  # above the supervisor's own bounds, so that it leaves nothing behind
QUIET_TIMEOUT_S = 60.0
MAIL_TIMEOUT_S = 600.0  # a window may leave tens of thousands to a mailbox that syncs each
POLL_S = 0.2
BASES = range(20_000, 31_000, 40)  # below the ports that Linux and macOS give to outgoing connections
OFFSETS = range(MAILBOX_OFFSET + 1)
SUPERVISOR = "supervisor"
UNDELIVERED = "undelivered_emails"


@dataclass(frozen=True, slots=True)
class Whole:
    """A running system; `pids` are its processes by name, the supervisor's among them."""

    system: System
    mail: Mail
    supervisor: Child
    pids: dict[str, int]

    def memory_mb(self) -> dict[str, float]:
        """Memory by process: PSS, which shares out what they have in common; RSS where none is told."""
        root = psutil.Process(self.supervisor.process.pid)
        names = {pid: name for name, pid in self.pids.items()}
        return {
            names.get(process.pid, f"{process.name()} {process.pid}"): _megabytes(process)
            for process in [root, *root.children(recursive=True)]
        }

    async def settle(self, client: httpx.AsyncClient) -> None:
        """Wait until no order is in progress, within bounds, and no mail waits. Raises BenchError."""
        await wait_until_quiet(client, self.system, Patience(QUIET_TIMEOUT_S))
        for _ in range(round(MAIL_TIMEOUT_S / POLL_S)):
            if not await self.undelivered():
                return
            await asyncio.sleep(POLL_S)
        raise BenchError(f"mail is still waiting {MAIL_TIMEOUT_S:.0f} s after a window's end")

    async def undelivered(self) -> int:
        """How many confirmations wait for delivery; with mail `null` none ever does. Raises BenchError."""
        told = (await fetch(self.system.port("email"), "/metrics")).body.decode()
        for family in text_string_to_metric_families(told):
            if family.name == UNDELIVERED:
                return int(family.samples[0].value)
        raise BenchError(f"the email service does not tell of its mail: no {UNDELIVERED} in its /metrics")

    async def check_alive(self) -> None:
        """Raises BenchError if a process has died since the start, whether or not it runs again."""
        rows: list[dict[str, Any]] = await asyncio.to_thread(call, self.system, "ps")
        died = [row["name"] for row in rows if row["restarts"] or row["pid"] != self.pids[row["name"]]]
        if died:
            raise self.supervisor.trouble(f"had to start {', '.join(died)} again: see its log")


@asynccontextmanager
async def whole_system(
    folder: Path,
    mail: Mail,
    settings: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    tree: Path | None = None,
) -> AsyncIterator[Whole]:
    """A system with its data in `folder`, ready; ended on the way out. Raises BenchError.

    `settings` are environment variables of its services and of `duet up`, which gets `options` besides.
    With a `tree` all of it is that tree's own code, its `duet up` too; only the dependencies are ours.
    """
    base = free_port_base()
    data = folder / "duet"
    arguments = ("up", "--json", "--port-base", str(base), "--data", str(data), "--mail", mail)
    own = {} if tree is None else {"DUET_ROOT": str(tree)}
    env = {**_environment(folder), **own, **(settings or {})}
    async with running(
        "duet up",
        "lab",
        *arguments,
        *options,
        env=env,
        log=folder / "up.log",
        talks=True,
        stop_timeout_s=STOP_TIMEOUT_S,
        root=tree or ROOT,
    ) as supervisor:
        announced = await supervisor.ask(b"", START_TIMEOUT_S)
        pids = {**announced["pids"], SUPERVISOR: supervisor.process.pid}
        yield Whole(System(data, base, discover_services(tree)), mail, supervisor, pids)


def free_port_base() -> int:
    """A port base of which every port that a system may use is free. Raises BenchError if there is none."""
    for base in random.sample(BASES, len(BASES)):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for offset in OFFSETS:
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
                probe.bind((HOST, base + offset))
            return base
    raise BenchError(f"no free port base on {HOST} from {BASES.start} to {BASES.stop}")


def _environment(folder: Path) -> dict[str, str]:
    """Our environment without settings of services that would make this run differ from the next."""
    prefixes = tuple(f"{service.name.upper()}_" for service in System(folder).services)
    ours = ("MAILBOX_", "DUET_PORT_BASE", "DUET_DATA", "DUET_NATS_URL", "DUET_BROKER_SYNC")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes + ours)}
    return {**kept, "XDG_STATE_HOME": str(folder / "state"), "PYTHONSAFEPATH": "1"}


def _megabytes(process: psutil.Process) -> float:
    memory: Any = process.memory_full_info()
    return float(getattr(memory, "pss", memory.rss)) / 1e6
