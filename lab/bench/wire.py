"""HTTP/1.1 for the load generator and the stub services: as little as a keep-alive connection needs.

The generator must cost far less than what it measures: so no client library and no header objects.
It refuses replies without a length (they end with the connection) and messages over 1 MiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from httptools import HttpParserError, HttpRequestParser, HttpResponseParser

LARGEST_BODY_BYTES = 1024 * 1024

REASONS = {200: b"OK", 201: b"Created", 404: b"Not Found", 422: b"Unprocessable Content"}


class MalformedMessage(Exception):
    """The other side sent what HTTP/1.1 does not allow, or a body that is too large."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Request:
    method: bytes
    path: bytes
    body: bytes


class _Reader:
    """Collects the body of one message at a time; the subclass knows what a finished message is."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._length = 0

    def on_body(self, chunk: bytes) -> None:
        self._length += len(chunk)
        if self._length > LARGEST_BODY_BYTES:
            raise MalformedMessage("the body is over 1 MiB")
        self._chunks.append(chunk)

    def _take_body(self) -> bytes:
        body = b"".join(self._chunks)
        self._chunks.clear()
        self._length = 0
        return body


class ReplyReader(_Reader):
    """Turns the bytes of a connection into replies, however they are cut."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = HttpResponseParser(self)
        self._done: list[Reply] = []

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that `data` completes, in order. Raises MalformedMessage."""
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise MalformedMessage(str(error)) from error
        done, self._done = self._done, []
        return done

    def on_message_complete(self) -> None:
        parser = self._parser
        self._done.append(Reply(parser.get_status_code(), self._take_body(), parser.should_keep_alive()))


class RequestReader(_Reader):
    """Turns the bytes of a connection into requests, however they are cut."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = HttpRequestParser(self)
        self._path = b""
        self._done: list[Request] = []

    def feed(self, data: bytes) -> list[Request]:
        """The requests that `data` completes, in order. Raises MalformedMessage."""
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            raise MalformedMessage(str(error)) from error
        done, self._done = self._done, []
        return done

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_message_complete(self) -> None:
        self._done.append(Request(self._parser.get_method(), self._path, self._take_body()))
        self._path = b""


def encode_request(
    method: str,
    path: str,
    port: int,
    body: bytes = b"",
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> bytes:
    """One request to `host`:`port` that keeps the connection open; a body is JSON."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\n"
    for name, value in (headers or {}).items():
        head += f"{name}: {value}\r\n"
    if token is not None:
        head += f"Authorization: Bearer {token}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body


def encode_reply(status: int, body: bytes) -> bytes:
    """One JSON reply that keeps the connection open."""
    return (
        b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (status, REASONS[status], len(body))
    ) + body
