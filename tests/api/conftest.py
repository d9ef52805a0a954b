"""The four services served on loopback, each at a port of its own, by one thread for all tests here."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from tests.api.apps import open_app

NAMES = ("checkout", "email", "warehouse", "rewards")
START_S = 30


@dataclass(frozen=True)
class Served:
    """The address of each service by its name."""

    urls: dict[str, str]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All four, until the tests are over."""
    folder = tmp_path_factory.mktemp("api")
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES}
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(folder, sockets, ready, stop)))
    thread.start()
    try:
        assert ready.wait(START_S)
        urls = {name: f"http://127.0.0.1:{each.getsockname()[1]}" for name, each in sockets.items()}
        yield Served(urls)
    finally:
        stop.set()
        thread.join(START_S)


async def _serve(
    folder: Path, sockets: dict[str, socket.socket], ready: threading.Event, stop: threading.Event
) -> None:
    async with AsyncExitStack() as stack:
        servers = []
        for name, listening in sockets.items():
            app = await stack.enter_async_context(open_app(name, folder))
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
            servers.append((server, asyncio.create_task(server.serve([listening]))))
        ready.set()
        await asyncio.to_thread(stop.wait)
        for server, task in servers:
            server.should_exit = True
            await task
