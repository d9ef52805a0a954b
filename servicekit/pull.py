"""Reading a durable consumer: what there is at once, or else the first message as soon as it comes.

nats-py's own fetch makes two requests, and a task for each message, and mistakes a missing consumer for one
that has nothing. Refuses to wait on a connection that is gone.
"""

import asyncio
from collections import deque
from typing import Any

import nats.errors
import orjson
from nats.aio.msg import Msg

from servicekit.link import NANOSECONDS, NO_RESPONDERS, STATUS, BusUnavailableError, Link, Links

# How much longer than it asked to wait a pull listens for the end that the broker announces.
GRACE_S = 1.0
# A pull ends without its fill when there is nothing more, or its time is up.
NO_MESSAGES, REQUEST_TIMEOUT = "404", "408"


class Message:
    """One message as delivered: the `tries`-th time. Unless it is settled it is delivered again.

    Settling is sent, not confirmed; it raises BusUnavailableError if it cannot even be sent. That is so, too,
    once the connection that brought it is lost: on a broker that was wiped meanwhile another message may have
    its place. `settled` says that it was tried.
    """

    def __init__(self, link: Link, msg: Msg) -> None:
        self._link = link
        self._reply = msg.reply
        self.data: bytes = msg.data
        self.subject: str = msg.subject
        self.sequence: int = msg.metadata.sequence.stream
        self.tries: int = msg.metadata.num_delivered
        self.settled = False

    async def ack(self) -> None:
        """It is done with."""
        await self._settle(b"+ACK")

    async def retry(self, delay_s: float) -> None:
        """Deliver it again after a while."""
        await self._settle(b'-NAK {"delay": %d}' % int(delay_s * NANOSECONDS))

    async def drop(self) -> None:
        """Never deliver it again."""
        await self._settle(b"+TERM")

    async def working(self) -> None:
        """It is being worked on: the time to acknowledge it begins anew."""
        await self._link.send(self._reply, b"+WPI")

    async def _settle(self, answer: bytes) -> None:
        self.settled = True
        await self._link.send(self._reply, answer)


class Pull:
    """Reads a durable consumer, one `fetch` at a time."""

    def __init__(self, links: Links, stream: str, durable: str) -> None:
        self._links = links
        self._next_subject = f"{links.api}CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._link: Link | None = None
        self._inbox = ""
        self._number = 0
        self._arrived: deque[Msg] = deque()
        self._waiter: asyncio.Future[Any] | None = None

    async def fetch(self, max_items: int, wait_s: float) -> list[Message]:
        """What there is, up to `max_items`, as soon as there is anything; nothing after `wait_s`.

        Raises BusUnavailableError if the stream, the consumer or the connection is gone.
        """
        link = self._links.link
        if link is not self._link:
            await self._listen(link)
        self._number += 1
        request = f"{self._inbox}.{self._number}"
        # With both set, the broker answers with what it has, or else waits for the first message.
        wanted = {"batch": max_items, "expires": int(wait_s * NANOSECONDS), "no_wait": True}
        taken: list[Message] = []
        try:
            async with asyncio.timeout(wait_s + GRACE_S):
                await link.send(self._next_subject, orjson.dumps(wanted), request)
                while len(taken) < max_items:
                    msg = await self._next(link)
                    status = msg.headers.get(STATUS) if msg.headers else None
                    if status is None or msg.data:
                        taken.append(Message(link, msg))
                    elif msg.subject == request:  # else it is about an earlier one
                        _check(status, msg)
                        break
        except (TimeoutError, BusUnavailableError) as exc:
            if not taken:
                raise BusUnavailableError(str(exc) or link.silence("the broker does not answer")) from exc
        return taken

    async def _listen(self, link: Link) -> None:
        self._arrived.clear()
        self._inbox = f"{link.inbox}.{id(self)}"
        try:
            await link.client.subscribe(f"{self._inbox}.*", cb=self._take)
        except (nats.errors.Error, OSError) as exc:
            raise BusUnavailableError(str(exc)) from exc
        self._link = link

    async def _take(self, msg: Msg) -> None:
        self._arrived.append(msg)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _next(self, link: Link) -> Msg:
        while not self._arrived:
            self._waiter = link.future()
            await self._waiter
        return self._arrived.popleft()


def _check(status: str, msg: Msg) -> None:
    if status == NO_RESPONDERS:
        raise BusUnavailableError("nothing listens there: the stream or the consumer is missing")
    if status not in (NO_MESSAGES, REQUEST_TIMEOUT):
        raise BusUnavailableError(f"{status} {(msg.headers or {}).get('Description')}")
