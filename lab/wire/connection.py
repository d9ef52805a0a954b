"""One connection through a proxy: pieces passed both ways, in order, each as its exchange's fate wants it.

What `lab.wire.talk` decides is carried out here. Every wait is bounded: a connection may be idle for so long,
and hold back so many bytes; then the other side is read no further.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import Literal, NamedTuple

from lab.wire.talk import Talk, cut, slices

PIECE_BYTES = 65_536
WAITING_BYTES = 1024 * 1024
IDLE_S = 600.0
LINGER_S = 2.0  # for a connecting side that has ended its half while its replies are still held back
GATHER_S = 0.02  # a reply may come in several pieces: a cut falls anywhere in what has come by then
DRIPS = 32
NO_TIME = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Waiting(NamedTuple):
    """What is still to be handed to the connecting side, when at the earliest, and what then."""

    due: float
    piece: bytes
    then: Literal["go on", "end", "reset"] = "go on"


class _Reset(Exception):  # no error: the weather
    """Both sides are to be reset."""


class Connection:
    """Passes between `near`, the connecting side, and `far`, until both end or the weather ends them."""

    def __init__(self, near: Ends, far: Ends, talk: Talk) -> None:
        self._near_reader, self._near = near
        self._far_reader, self._far = far
        self._talk = talk
        self._clock = asyncio.get_running_loop().time
        self._line: deque[_Waiting] = deque()
        self._line_bytes = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._near_ended = asyncio.Event()
        self._bound = asyncio.timeout(IDLE_S)
        self._is_bounded = False
        # What is written has then reached the system, and is not thrown away by a reset.
        self._near.transport.set_write_buffer_limits(0)

    async def run(self) -> None:
        """Pass until the end of both; a reset or a bound ends both by a reset. Raises nothing of its own."""
        orderly = False
        try:
            async with self._bound, asyncio.TaskGroup() as tasks:
                for work in (self._pass_requests, self._take_replies, self._hand_out):
                    tasks.create_task(work())
            orderly = True
        except* (OSError, TimeoutError, _Reset):
            pass
        finally:
            for writer in (self._near, self._far):
                writer.close() if orderly else reset(writer)

    async def _pass_requests(self) -> None:
        while piece := await self._near_reader.read(PIECE_BYTES):
            self._stay()
            move = self._talk.asked()
            if move == "reset":
                raise _Reset
            self._swallow_if_so()
            if move == "pass":
                self._far.write(piece)
                await self._far.drain()
        self._near_ended.set()
        self._far.write_eof()
        if self._line:
            self._end_within(LINGER_S)

    async def _take_replies(self) -> None:
        try:
            while piece := await self._far_reader.read(PIECE_BYTES):
                self._stay()
                if not await self._take(piece):
                    return
        except ConnectionResetError:
            await self._put(_Waiting(self._clock(), b"", "reset"))
            return
        if self._talk.fate.kind == "swallow":  # not even the end comes back
            await self._near_ended.wait()
        await self._put(_Waiting(self._clock(), b"", "end"))

    async def _take(self, piece: bytes) -> bool:
        """Do with a piece of a reply what befalls it; whether any more may follow."""
        move, fate, now = self._talk.answered(), self._talk.fate, self._clock()
        if move == "cut":
            piece = cut(await self._gathered(piece), fate.at)
            await self._put(_Waiting(now, piece, "reset"))
        elif move == "reset":
            await self._put(_Waiting(now, b"", "reset"))
        elif move == "drip":
            drips = slices(piece, DRIPS)
            for number, drip in enumerate(drips, start=1):
                await self._put(_Waiting(now + fate.seconds * number / len(drips), drip))
        elif move == "delay":
            await self._put(_Waiting(now + fate.seconds, piece))
        elif move == "drop":
            self._swallow_if_so()
        elif self._line:
            await self._put(_Waiting(now, piece))
        else:  # nothing waits before it
            self._near.write(piece)
            await self._near.drain()
        return move not in ("cut", "reset")

    async def _gathered(self, piece: bytes) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                while len(piece) < PIECE_BYTES and (more := await self._far_reader.read(PIECE_BYTES)):
                    piece += more
        return piece

    async def _put(self, waiting: _Waiting) -> None:
        while self._line and self._line_bytes + len(waiting.piece) > WAITING_BYTES:
            self._room.clear()
            await self._room.wait()
        self._line.append(waiting)
        self._line_bytes += len(waiting.piece)
        self._came.set()

    async def _hand_out(self) -> None:
        while True:
            while not self._line:
                self._came.clear()
                await self._came.wait()
            due, piece, then = self._line[0]
            await asyncio.sleep(max(0.0, due - self._clock()))
            self._stay()
            if piece:
                self._near.write(piece)
                await self._near.drain()
            if then == "reset":
                raise _Reset
            self._line.popleft()
            self._line_bytes -= len(piece)
            self._room.set()
            if then == "end":
                self._near.write_eof()
                return

    def _swallow_if_so(self) -> None:
        if self._talk.fate.kind == "swallow":
            self._end_within(self._talk.fate.seconds)

    def _end_within(self, seconds: float) -> None:
        """Reset both sides after so long, whatever they still say; the first such bound holds."""
        if not self._is_bounded and not self._bound.expired():
            self._bound.reschedule(self._clock() + seconds)
            self._is_bounded = True

    def _stay(self) -> None:
        """Something was said: the connection is not idle."""
        if not self._is_bounded and not self._bound.expired():
            self._bound.reschedule(self._clock() + IDLE_S)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that its other end sees a reset, not an end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_TIME)
    writer.transport.abort()
