"""A TCP proxy that can lose a server's replies after the server has done its work.

While `cutting` is set, the first bytes of a reply are thrown away and the client's connection is reset; with
`after_bytes`, so many bytes get through first. Listens on loopback, for a test's own client only.
"""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CONNECT_S = 5.0
IDLE_S = 60.0
RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends a reset


class CuttingProxy(socketserver.ThreadingTCPServer):
    """Passes everything through until `cutting` is set; `cut` counts the replies that were lost."""

    daemon_threads = True

    def __init__(self, upstream: tuple[str, int], after_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = upstream
        self.after_bytes = after_bytes
        self.cutting = threading.Event()
        self.cut = 0

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Connection(socketserver.BaseRequestHandler):
    server: CuttingProxy
    request: socket.socket

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.server.upstream, CONNECT_S) as upstream,
        ):
            for side in (self.request, upstream):
                side.settimeout(IDLE_S)
            threading.Thread(target=_pump, args=(self.request, upstream), daemon=True).start()
            while reply := upstream.recv(65_536):
                if self.server.cutting.is_set():
                    self.server.cut += 1
                    self.request.sendall(reply[: self.server.after_bytes])
                    if not self.server.after_bytes:
                        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                self.request.sendall(reply)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sent := source.recv(65_536):
            target.sendall(sent)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def cutting_proxy(port: int, *, after_bytes: int = 0) -> Iterator[CuttingProxy]:
    """A proxy before a loopback port, while the context lasts."""
    with CuttingProxy(("127.0.0.1", port), after_bytes) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join(5)
