"""The two conductors of the slow bench: the same code and settings, but that one batches its calls.

Each has a process and a database of its own, and calls the same stub services.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from lab.bench.arms import Arm, all_ready, durable
from lab.bench.children import free_ports

ON, OFF = "on", "off"
BATCHING = (ON, OFF)


@asynccontextmanager
async def serving(stub_ports: Mapping[str, int], folder: Path) -> AsyncIterator[dict[str, Arm]]:
    """Both conductors by what `CHECKOUT_BATCHING` is, ready; ended on the way out. Raises BenchError."""
    starting = [
        durable(f"batching-{batching}", port, stub_ports, folder, {"CHECKOUT_BATCHING": batching})
        for batching, port in zip(BATCHING, free_ports(len(BATCHING)), strict=True)
    ]
    async with all_ready(starting) as arms:
        yield {batching: arms[f"batching-{batching}"] for batching in BATCHING}
