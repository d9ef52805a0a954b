"""The implementation under examination: requests to it, each bounded, and the orders that it has accepted.

It refuses to judge: an answer is handed over as it came, and a request without an answer is a failure of the
check that asked. Only 503 with `Retry-After` is asked again, as any client would.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx

from lab.bench.wire import encode_request
from lab.samples import sample_order
from lab.targets import Target

REQUEST_S = 10.0
READ_WAIT_S = 5
MOST_TRIES = 4
LONGEST_PAUSE_S = 2.0
SHOWN = 200
ACCEPTED = (201, 202)


class FailedError(Exception):
    """A requirement is not met; the text is what was seen instead."""


class SkippedError(Exception):
    """A requirement cannot be checked here; the text is why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: what was asked, the status, headers and body, and how long it took."""

    asked: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    def __str__(self) -> str:
        text = self.body[:SHOWN].decode("utf-8", "replace")
        return f"{self.asked}: {self.status} {text}{'...' if len(self.body) > SHOWN else ''}".rstrip()

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; raises `FailedError` where it is none."""
        try:
            parsed = json.loads(self.body)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise FailedError(f"{self}: the body is no JSON object")
        return parsed

    def order_id(self) -> str:
        """The order's id; raises `FailedError` where there is none."""
        order_id = self.document().get("order_id")
        require(isinstance(order_id, str) and order_id != "", f"{self}: order_id is missing")
        return str(order_id)

    def preferences_applied(self) -> set[str]:
        """What `Preference-Applied` names."""
        return {
            part.strip() for part in self.headers.get("Preference-Applied", "").split(",") if part.strip()
        }


@dataclass
class Subject:
    """One implementation in one style (an empty one is left to it), and what it has accepted.

    `served` are the styles that it takes orders of. Over all styles of an examination: `promised` is by order
    id whether the customer is a member, and `before` what ids each service showed at first, if it was asked.
    """

    client: httpx.AsyncClient
    target: Target
    style: str
    served: Sequence[str] = ()
    promised: dict[str, bool] = field(default_factory=dict)
    before: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        """Where `/checkouts` is found below."""
        origin = self.target.origin
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        return f"http://{host}:{origin.port}{origin.path}"

    async def place(
        self,
        order: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        prefer: str | None = None,
        style: str | None = None,
        content: bytes | None = None,
        token: bool = True,
    ) -> Reply:
        """POST an order (default: the sample); what is accepted is kept in `promised`.

        `content` is sent instead of the order's JSON, and means the same order.
        """
        body = sample_order() if order is None else order
        headers = {"Content-Type": "application/json"}
        headers |= {} if key is None else {"Idempotency-Key": key}
        headers |= {} if prefer is None else {"Prefer": prefer}
        encoded = json.dumps(body).encode() if content is None else content
        reply = await self.send("POST", self.orders_path(style), headers, encoded, token=token)
        if reply.status in ACCEPTED:
            self.promised[reply.order_id()] = body["customer"]["rewards_member"] is True
        return reply

    async def place_accepted(self, order: Mapping[str, Any] | None = None, **options: Any) -> Reply:
        """The same; raises `FailedError` unless the order is accepted."""
        reply = await self.place(order, **options)
        require(reply.status in ACCEPTED, f"{reply} (201 or 202 was due)")
        return reply

    async def read(self, order_id: str, *, prefer: str | None = None) -> Reply:
        """GET an order."""
        return await self.send("GET", f"/checkouts/{order_id}", {} if prefer is None else {"Prefer": prefer})

    async def read_final(self, order_id: str, within_s: float) -> dict[str, Any]:
        """An order's representation once it is not in progress any more, or when the time is up."""
        ends = time.monotonic() + within_s
        while True:
            wait_s = max(0, min(READ_WAIT_S, round(ends - time.monotonic())))
            reply = await self.read(order_id, prefer=f"wait={wait_s}")
            require(reply.status == 200, f"{reply} (200 was due)")
            document = reply.document()
            if document.get("status") != "in_progress" or time.monotonic() >= ends:
                return document
            await asyncio.sleep(0.2)  # for one that does not wait

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        *,
        token: bool = True,
    ) -> Reply:
        """One request within `REQUEST_S`; raises `FailedError` where no answer comes.

        503 is repeated a few times, after the pause that it asks for (at most 2 s each).
        """
        for tries_left in reversed(range(MOST_TRIES)):
            reply = await self._try(method, path, headers or {}, content, token=token)
            if reply.status != 503 or not tries_left:
                return reply
            told = reply.headers.get("Retry-After", "")
            require(told.isascii() and told.isdigit(), f"{reply}: 503 without Retry-After in seconds")
            await asyncio.sleep(min(float(told), LONGEST_PAUSE_S))
        raise AssertionError("the last try returns")

    async def drop(self, order: Mapping[str, Any], key: str, *, share: float, linger_s: float) -> None:
        """Send a share of an order's request, stay `linger_s` longer, and reset the connection unread."""
        origin = self.target.origin
        request = encode_request(
            "POST",
            origin.path + self.orders_path(None),
            origin.port,
            json.dumps(order).encode(),
            token=origin.token,
            headers={"Idempotency-Key": key},
            host=origin.host,
        )
        try:
            async with asyncio.timeout(REQUEST_S):
                _, writer = await asyncio.open_connection(origin.host, origin.port)
                try:
                    writer.write(request[: int(len(request) * share)])
                    await writer.drain()
                    await asyncio.sleep(linger_s)
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError) as error:
            raise FailedError(f"no connection to {self.base_url}: {error!r}") from error

    def orders_path(self, style: str | None) -> str:
        """The path that takes orders of a style (default: the examined one)."""
        chosen = self.style if style is None else style
        return "/checkouts" + (f"?style={chosen}" if chosen else "")

    async def _try(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None, *, token: bool
    ) -> Reply:
        asked = f"{method} {path}"
        own = self.target.origin.token
        authorization = {"Authorization": f"Bearer {own}"} if token and own else {}
        began = time.monotonic()
        try:
            async with asyncio.timeout(REQUEST_S):
                response = await self.client.request(
                    method,
                    self.base_url + path,
                    headers={**authorization, **headers},
                    content=content,
                    timeout=None,  # one around the whole request is above
                )
        except TimeoutError as error:
            raise FailedError(f"{asked}: no answer within {REQUEST_S:.0f} s") from error
        except (httpx.TransportError, aiohttp.ClientError, ConnectionError) as error:
            raise FailedError(f"{asked}: no answer: {str(error) or type(error).__name__}") from error
        took_s = time.monotonic() - began
        return Reply(asked, response.status_code, response.headers, response.content, took_s)


def require(met: bool, seen: str) -> None:
    """Raise `FailedError` with what was seen unless the requirement is met."""
    if not met:
        raise FailedError(seen)


def fresh_key() -> str:
    """An Idempotency-Key that nobody has used."""
    return f"conform-{uuid.uuid4()}"
