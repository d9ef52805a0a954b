"""One connection to the broker at a time, made anew for ever; what waits for an answer on a lost one fails.

nats-py's own reconnection is off: it buffers what is published meanwhile, leaves requests waiting for answers
that cannot come, and may stop trying. Refuses to send a password in the clear where TLS was asked for.
"""

import asyncio
import logging
import random
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from servicekit.settings import ServiceSettings

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2
RECONNECT_PAUSE_S = (0.2, 0.8)
# Between two attempts at a server that takes no connections.
RETRY_WAIT_S = 1
# A connection on which two pings went unanswered is given up.
PING_INTERVAL_S = 2
MAX_PINGS = 2
# nats-py tells of a lost connection only once it has flushed what it had, which a stalled broker never takes.
LOOK_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 1.0
QUIET_S = 10.0
NANOSECONDS = 1_000_000_000
STATUS, NO_RESPONDERS = "Status", "503"


class BusUnavailableError(Exception):
    """The broker gave no good answer: whether it did as asked is unknown."""


class RefusedError(BusUnavailableError):
    """The broker answered with an error; `code` is JetStream's."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", "the broker refused")))
        self.code = error.get("err_code")


class Link:
    """One connection, until it is lost. `inbox` is the subject below which only this link listens.

    `said` is what the broker has complained of last.
    """

    def __init__(self, client: Client, inbox: str) -> None:
        self.client = client
        self.inbox = inbox
        self.is_lost = False
        self.said = ""
        self._waiting: set[asyncio.Future[Any]] = set()
        self._asked: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = count()

    async def open(self) -> None:
        """Listen for answers."""
        await self.client.subscribe(f"{self.inbox}.answers.*", cb=self._answered)

    def future(self) -> asyncio.Future[Any]:
        """Something to wait for that fails with BusUnavailableError if the link is lost before."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.is_lost:
            future.set_exception(BusUnavailableError("the connection to the broker is lost"))
        else:
            self._waiting.add(future)
            future.add_done_callback(self._waiting.discard)
        return future

    async def send(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send without waiting for an answer. Raises BusUnavailableError."""
        if self.is_lost:
            raise BusUnavailableError("the connection to the broker is lost")
        try:
            await self.client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError, RuntimeError) as exc:
            raise BusUnavailableError(str(exc) or type(exc).__name__) from exc

    async def ask(
        self, subject: str, payload: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send, and wait for JetStream's answer. Raises BusUnavailableError, RefusedError among them."""
        reply = f"{self.inbox}.answers.{next(self._numbers)}"
        future = self._asked[reply] = self.future()
        try:
            async with asyncio.timeout(timeout_s):
                await self.send(subject, payload, reply, headers)
                msg = await future
        except TimeoutError:
            raise BusUnavailableError(self.silence(f"no answer within {timeout_s:g} s")) from None
        finally:
            del self._asked[reply]
        if msg.headers and msg.headers.get(STATUS) == NO_RESPONDERS:
            raise BusUnavailableError("nothing listens there: JetStream or the stream is missing")
        answer: dict[str, Any] = orjson.loads(msg.data)
        if error := answer.get("error"):
            raise RefusedError(error)
        return answer

    def silence(self, what: str) -> str:
        """A silence, with what the broker has said last: it never answers what it denies."""
        return f"{what}; it last said: {self.said}" if self.said else what

    async def _answered(self, msg: Msg) -> None:
        future = self._asked.get(msg.subject)
        if future is not None and not future.done():
            future.set_result(msg)

    def lose(self) -> None:
        """Everybody who waits hears that it was in vain."""
        self.is_lost = True
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(BusUnavailableError("the connection to the broker was lost"))
                future.exception()  # nobody may be waiting for it any more


class Links:
    """Keeps a link up: `current`, or None while there is none; `on_connected` are told of each new one."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.current: Link | None = None
        self.api = settings.broker_api
        self.on_connected: list[Callable[[], None]] = []
        self._settings = settings
        self._tls = tls_context(settings)
        self._trouble = ""
        self._noted = ""
        self._quiet_until = 0.0

    @property
    def link(self) -> Link:
        """The present link. Raises BusUnavailableError."""
        if self.current is None:
            why = f": {self._trouble}" if self._trouble else ""
            raise BusUnavailableError(f"there is no connection to the broker{why}")
        return self.current

    async def run(self) -> None:
        """For ever."""
        while True:
            client = Client()
            try:
                await self._hold(client)
            except Exception as exc:  # whatever it was, there is nothing to do but to connect again
                await self._note(exc)
            finally:
                if self.current is not None:
                    self.current.lose()
                    self.current = None
                with suppress(Exception):
                    async with asyncio.timeout(CLOSE_TIMEOUT_S):
                        await client.close()
            await asyncio.sleep(random.uniform(*RECONNECT_PAUSE_S))  # noqa: S311 - jitter, no secret

    async def _hold(self, client: Client) -> None:
        lost = asyncio.Event()

        async def disconnected() -> None:
            lost.set()

        user = self._settings.nats_user
        await client.connect(
            self._settings.broker_urls,
            name=user,
            user=user if self._settings.nats_password else None,
            password=(lambda: self._password(client)) if self._settings.nats_password else None,
            tls=self._tls,
            inbox_prefix=f"_INBOX_{user}",
            allow_reconnect=False,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_WAIT_S,
            connect_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=MAX_PINGS,
            flush_timeout=FLUSH_TIMEOUT_S,
            error_cb=self._note,
            disconnected_cb=disconnected,
        )
        link = Link(client, f"_INBOX_{user}.{secrets.token_hex(8)}")
        await link.open()
        self.current, self._trouble, self._noted = link, "", ""
        log.info("connected to the broker")
        for tell in self.on_connected:
            tell()
        while not client.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL_S):
                    await lost.wait()

    def _password(self, client: Client) -> str:
        # Called after the TLS handshake, if there was one: nats-py leaves that to the server.
        if self._tls is not None and not client._server_info.get("tls_required"):
            raise nats.errors.Error("the broker offers no TLS")
        assert self._settings.nats_password is not None
        return self._settings.nats_password.get_secret_value()

    async def _note(self, exc: Exception) -> None:
        """Log trouble, but not each of a thousand times, and the same trouble once a connection."""
        self._trouble = str(exc) or type(exc).__name__
        if self.current is not None:
            self.current.said = self._trouble
        if self._trouble != self._noted and time.monotonic() >= self._quiet_until:
            self._noted = self._trouble
            self._quiet_until = time.monotonic() + QUIET_S
            log.warning("trouble with the broker", extra={"error": self._trouble})


def tls_context(settings: ServiceSettings) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for: by a certificate authority, or by a tls:// URL."""
    if settings.nats_ca is None and not any(url.startswith("tls:") for url in settings.broker_urls):
        return None
    context = ssl.create_default_context(cafile=settings.nats_ca)
    if settings.nats_cert is not None:
        context.load_cert_chain(settings.nats_cert, settings.nats_key)
    return context
