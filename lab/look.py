"""One bounded GET, by which the supervisor looks at the processes that it runs.

HTTP/1.0 on a connection of its own, so that the answer ends with the connection and is never in chunks. It
refuses to wait or to read without end, and imports no HTTP client: the supervisor stays small.
"""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

OK = 200
MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """What was answered; the body is cut at `MOST_BYTES`."""

    status: int
    body: bytes


async def look(url: str, timeout_s: float) -> Seen | None:
    """The answer to `GET url`; None where there was none in time, or it is no HTTP."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    request = f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
    answer = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(request.encode())
                while len(answer) < MOST_BYTES and (piece := await reader.read(MOST_BYTES)):
                    answer += piece
            finally:
                writer.transport.abort()
        head, _, body = bytes(answer).partition(b"\r\n\r\n")
        return Seen(int(head.split(b" ", 2)[1]), body)
    except (OSError, TimeoutError, ValueError, IndexError):
        return None
