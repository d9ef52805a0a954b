"""The four conductors that are compared: how each is started, and against which stub services.

All run with one process each and the server settings of uvicorn with uvloop and httptools.
The durable ones get their settings as an operator would give them, their databases on the disk of the bench's
folder; one of them shares no requests, so that batching has a price.
"""

import os
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from lab.bench.children import ROOT, Child, free_ports, running, wait_ready

DUET = "duet"
DUET_PLAIN = "duet-plain"
NAIVE_HTTPX = "naive-httpx"
NAIVE_AIOHTTP = "naive-aiohttp"
ARMS = (DUET, DUET_PLAIN, NAIVE_AIOHTTP, NAIVE_HTTPX)

DURABLE: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {DUET: {}, DUET_PLAIN: {"CHECKOUT_BATCHING": "off"}}
)
BASELINES = {NAIVE_HTTPX: "lab.baselines.naive_httpx", NAIVE_AIOHTTP: "lab.baselines.naive_aiohttp"}


@dataclass(frozen=True, slots=True)
class Arm:
    """A conductor that serves: `token` is its operator's, empty for a baseline."""

    name: str
    child: Child
    port: int
    token: str


@asynccontextmanager
async def serving(stub_ports: Mapping[str, int], folder: Path) -> AsyncIterator[dict[str, Arm]]:
    """All arms, ready, in front of the stub services; ended on the way out. Raises BenchError."""
    starting = [
        durable(name, port, stub_ports, folder, DURABLE[name])
        if name in DURABLE
        else _naive(name, port, stub_ports, folder)
        for name, port in zip(ARMS, free_ports(len(ARMS)), strict=True)
    ]
    async with all_ready(starting) as arms:
        yield arms


@asynccontextmanager
async def all_ready(starting: Iterable[AbstractAsyncContextManager[Arm]]) -> AsyncIterator[dict[str, Arm]]:
    """Conductors that are started together, by name, once all are ready; ended on the way out.

    Raises BenchError.
    """
    async with AsyncExitStack() as stack:
        arms = [await stack.enter_async_context(each) for each in starting]
        for arm in arms:
            await wait_ready(arm.child, arm.port)
        yield {arm.name: arm for arm in arms}


@asynccontextmanager
async def durable(
    name: str,
    port: int,
    stub_ports: Mapping[str, int],
    folder: Path,
    settings: Mapping[str, str],
    root: Path = ROOT,
) -> AsyncIterator[Arm]:
    """The durable conductor of the tree at `root`, its database in `folder`: started, not ready yet perhaps.

    It is ended on the way out. `settings` are CHECKOUT_* variables besides those that it needs. See
    `database_of`.
    """
    [nobody] = free_ports(1)
    token = secrets.token_urlsafe(24)
    env = {
        "CHECKOUT_HOST": "127.0.0.1",
        "CHECKOUT_PORT": str(port),
        "CHECKOUT_DATABASE_URL": f"sqlite:///{database_of(name, folder)}",
        "CHECKOUT_OPERATOR_TOKEN": token,
        "CHECKOUT_NATS_URL": f"nats://127.0.0.1:{nobody}",  # nobody listens: no event is measured
        **_services("CHECKOUT", stub_ports),
        **settings,
    }
    log = folder / f"{name}.log"
    async with running(name, "checkout", env={**_inherited(), **env}, log=log, root=root) as child:
        yield Arm(name, child, port, token)


def database_of(name: str, folder: Path) -> Path:
    """The SQLite file of the durable conductor called `name`."""
    return folder / f"{name}.db"


@asynccontextmanager
async def _naive(name: str, port: int, stub_ports: Mapping[str, int], folder: Path) -> AsyncIterator[Arm]:
    module, arguments, env = _baseline(name, port, stub_ports)
    log = folder / f"{name}.log"
    async with running(name, module, *arguments, env={**_inherited(), **env}, log=log) as child:
        yield Arm(name, child, port, "")


def _baseline(name: str, port: int, stub_ports: Mapping[str, int]) -> tuple[str, list[str], dict[str, str]]:
    serve = f"{BASELINES[name]}:create_app --factory --host 127.0.0.1 --port {port}"
    tuned = "--loop uvloop --http httptools --log-level warning"
    lean = "--no-access-log --no-server-header --no-date-header"
    arguments = f"{serve} {tuned} {lean}".split()
    return "uvicorn", arguments, _services("NAIVE", stub_ports)


def _services(prefix: str, stub_ports: Mapping[str, int]) -> dict[str, str]:
    env = {}
    for name, port in stub_ports.items():
        env[f"{prefix}_{name.upper()}_URL"] = f"http://127.0.0.1:{port}"
        env[f"{prefix}_{name.upper()}_TOKEN"] = secrets.token_urlsafe(24)
    return env


def _inherited() -> dict[str, str]:
    """Our environment without settings that would make this run differ from the next."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHECKOUT_", "NAIVE_"))}
