"""The two conductors of the slow bench: the same code and settings, but that one batches its calls.

Each has a process and a database of its own, and calls the same stub services.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from lab.bench.arms import Arm, durable
from lab.bench.children import free_ports, wait_ready

ON, OFF = "on", "off"
BATCHING = (ON, OFF)


@asynccontextmanager
async def serving(stub_ports: Mapping[str, int], folder: Path) -> AsyncIterator[dict[str, Arm]]:
    """Both conductors by what `CHECKOUT_BATCHING` is, ready; ended on the way out. Raises BenchError."""
    async with AsyncExitStack() as stack:
        arms = {}
        for batching, port in zip(BATCHING, free_ports(len(BATCHING)), strict=True):
            settings = {"CHECKOUT_BATCHING": batching}
            arms[batching] = await stack.enter_async_context(
                durable(f"batching-{batching}", port, stub_ports, folder, settings)
            )
        for arm in arms.values():
            await wait_ready(arm.child, arm.port)
        yield arms
