"""The two conductors of the slow bench: the same code and settings, but that one batches its calls.

Each has a process and a database of its own, and calls the same stub services. It refuses the caller's own
settings, which would make this run differ from the next.
"""

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from lab.bench.arms import Arm
from lab.bench.children import free_ports, running, wait_ready

ON, OFF = "on", "off"
BATCHING = (ON, OFF)


@asynccontextmanager
async def serving(stub_ports: Mapping[str, int], folder: Path) -> AsyncIterator[dict[str, Arm]]:
    """Both conductors by what `CHECKOUT_BATCHING` is, ready; ended on the way out. Raises BenchError."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHECKOUT_")}
    async with AsyncExitStack() as stack:
        arms = {}
        for batching, port in zip(BATCHING, free_ports(len(BATCHING)), strict=True):
            name, token = f"batching {batching}", secrets.token_urlsafe(24)
            env = {**inherited, **_settings(batching, port, token, stub_ports, folder)}
            log = folder / f"batching-{batching}.log"
            child = await stack.enter_async_context(running(name, "checkout", env=env, log=log))
            arms[batching] = Arm(name, child, port, token)
        for arm in arms.values():
            await wait_ready(arm.child, arm.port)
        yield arms


def _settings(
    batching: str, port: int, token: str, stub_ports: Mapping[str, int], folder: Path
) -> dict[str, str]:
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DATABASE_URL": f"sqlite:///{folder / f'batching-{batching}.db'}",
        "OPERATOR_TOKEN": token,
        "NATS_URL": f"nats://127.0.0.1:{free_ports(1)[0]}",  # nobody listens: no event is measured
        "BATCHING": batching,
    }
    for name, stub_port in stub_ports.items():
        settings[f"{name.upper()}_URL"] = f"http://127.0.0.1:{stub_port}"
        settings[f"{name.upper()}_TOKEN"] = secrets.token_urlsafe(24)
    return {f"CHECKOUT_{name}": value for name, value in settings.items()}
