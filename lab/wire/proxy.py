"""A TCP proxy on loopback that passes everything on, but for the weather on its wire.

It listens only while the other side does, so that what is down looks down: a connection is refused. Bounded:
connections, what waits in each, how long each may be idle. It refuses nobody, since it adds no right: what
it passes on is checked where it arrives.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from lab.wire.connection import PIECE_BYTES, Connection, Ends, reset
from lab.wire.talk import Draws, Talk
from lab.wire.weather import as_document

HOST = "127.0.0.1"
MOST_CONNECTIONS = 256
CONNECT_S = 10.0
KNOCK_S = 0.05
KNOCK_TIMEOUT_S = 1.0


class Proxy:
    """A port on loopback before `upstream`, a host and a port; serves from `start` to `end`.

    `opened` is set while it listens. The weather is that of `draws`, and may be changed there at any time.
    """

    def __init__(
        self, port: int, upstream: tuple[str, int], draws: Draws, notice: Callable[[str], None]
    ) -> None:
        self.port = port
        self.upstream = upstream
        self.draws = draws
        self.opened = asyncio.Event()
        self.refused = 0
        self._notice = notice
        self._down = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def state(self) -> dict[str, Any]:
        """Weather, ports and counts, as JSON; `direct` is the port behind it."""
        return {
            "weather": as_document(self.draws.weather),
            "port": self.port,
            "direct": self.upstream[1],
            "open": self.opened.is_set(),
            "connections": len(self._connections),
            "refused": self.refused,
            "exchanges": self.draws.exchanges,
            "hit": dict(self.draws.hit),
        }

    def start(self) -> None:
        """Listen whenever the other side does, from now on."""
        self._keeping = asyncio.create_task(self._keep(), name=f"proxy {self.port}")

    def close_door(self) -> None:
        """The other side is known to have ended: refuse connections until it takes them again."""
        self._down.set()

    async def end(self) -> None:
        """Stop listening and reset every connection."""
        tasks = [task for task in (self._keeping, *self._connections) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        told = False
        while True:
            if not await self._upstream_listens():
                await asyncio.sleep(KNOCK_S)
                continue
            self._down.clear()
            try:
                server = await asyncio.start_server(self._accept, HOST, self.port, limit=PIECE_BYTES)
            except OSError as error:
                if not told:
                    self._notice(f"cannot listen at port {self.port} yet: {error}")
                told = True
                await asyncio.sleep(KNOCK_S)
                continue
            told = False
            self.opened.set()
            try:
                await self._down.wait()
            finally:
                self.opened.clear()
                server.close()

    async def _upstream_listens(self) -> bool:
        try:
            async with asyncio.timeout(KNOCK_TIMEOUT_S):
                _, writer = await asyncio.open_connection(*self.upstream)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MOST_CONNECTIONS:
            self.refused += 1
            reset(writer)
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = None
        try:
            there = await self._connect()
        finally:
            if there is None:
                reset(writer)
        if there is not None:
            await Connection((reader, writer), there, Talk(self.draws)).run()

    async def _connect(self) -> Ends | None:
        """A connection to the other side; None where it takes none, which is counted."""
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncio.open_connection(*self.upstream, limit=PIECE_BYTES)
        except (OSError, TimeoutError) as error:
            self.refused += 1
            if isinstance(error, ConnectionRefusedError):
                self.close_door()
            return None
