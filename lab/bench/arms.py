"""The three conductors that are compared: how each is started, and against which stub services.

All three run with one process each and the server settings of uvicorn with uvloop and httptools.
The real one gets its settings as an operator would give them, its database on the disk of the bench's folder.
"""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.bench.children import Child, free_ports, running, wait_ready

DUET = "duet"
NAIVE_HTTPX = "naive-httpx"
NAIVE_AIOHTTP = "naive-aiohttp"
ARMS = (DUET, NAIVE_AIOHTTP, NAIVE_HTTPX)

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
    async with AsyncExitStack() as stack:
        arms = {}
        for name, port in zip(ARMS, free_ports(len(ARMS)), strict=True):
            token = secrets.token_urlsafe(24) if name == DUET else ""
            module, arguments, own = (
                _duet(port, token, stub_ports, folder) if name == DUET else _baseline(name, port, stub_ports)
            )
            env = {**_inherited(), **own}
            child = await stack.enter_async_context(
                running(name, module, *arguments, env=env, log=folder / f"{name}.log")
            )
            arms[name] = Arm(name, child, port, token)
        for arm in arms.values():
            await wait_ready(arm.child, arm.port)
        yield arms


def _duet(
    port: int, token: str, stub_ports: Mapping[str, int], folder: Path
) -> tuple[str, list[str], dict[str, str]]:
    env = {
        "CHECKOUT_HOST": "127.0.0.1",
        "CHECKOUT_PORT": str(port),
        "CHECKOUT_DATABASE_URL": f"sqlite:///{folder / 'checkout.db'}",
        "CHECKOUT_OPERATOR_TOKEN": token,
        "CHECKOUT_NATS_URL": f"nats://127.0.0.1:{free_ports(1)[0]}",  # nobody listens: no event is measured
    }
    return "checkout", [], {**env, **_services("CHECKOUT", stub_ports)}


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
