"""Hands messages to one mail server, over a bounded pool of kept-open connections.

Tells a refusal (5xx to the recipient or the data: final) from everything else, which may pass. After any
failure the connection is thrown away. SMTP cannot deduplicate: a reply lost after DATA is unknowable, so a
message may be handed over twice, under one Message-ID. Refuses a password over an unencrypted network.
"""

import asyncio
import contextlib
import ipaddress
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiosmtplib

# A connection is replaced after so many messages, or when it was idle for longer than servers like.
MESSAGES_PER_CONNECTION = 100
MAX_IDLE_S = 30.0
QUIT_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Server:
    """A mail server. `tls`: from the first byte; without it STARTTLS is used where the server offers it."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = None

    @property
    def start_tls(self) -> bool | None:
        """Whether STARTTLS is a must (True), used where offered (None), or out of place (False)."""
        if self.tls:
            return False
        return True if self.username and not _is_loopback(self.host) else None


@dataclass(frozen=True)
class Envelope:
    """One message, ready to go: ASCII sender, one recipient, bytes as they travel."""

    sender: str
    recipient: str
    payload: bytes
    internationalised: bool


class RefusedError(Exception):
    """The server will never take this message."""


class DeferredError(Exception):
    """The message did not get through, or nobody knows whether it did: try again later."""


class UnreachableError(DeferredError):
    """There was no connection to the server: other messages would fare no better now."""


@dataclass
class _Connection:
    client: aiosmtplib.SMTP
    used_at: float
    messages: int = 0


class SmtpPool:
    """At most `size` connections to one server. Close it at the end."""

    def __init__(
        self, server: Server, *, size: int, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._clock = clock
        self._slots = asyncio.Semaphore(size)
        # The connection used last is used next, so that under little work the others grow old and go.
        self._idle: list[_Connection] = []

    async def send(self, envelope: Envelope) -> None:
        """Hand over one message: within the timeout, and once more that where it has to connect first.

        Raises RefusedError, DeferredError or UnreachableError.
        """
        async with self._slots, self._connection() as connection:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _hand_over(connection.client, envelope)
            except TimeoutError as exc:
                raise DeferredError(f"no answer within {self._timeout_s:g} s") from exc
            except aiosmtplib.SMTPRecipientsRefused as exc:
                refusal = exc.recipients[0]
                raise _verdict(refusal.code, refusal.message) from exc
            except aiosmtplib.SMTPDataError as exc:
                raise _verdict(exc.code, exc.message) from exc
            except (aiosmtplib.SMTPException, OSError) as exc:
                raise DeferredError(_describe(exc)) from exc
            except ValueError as exc:
                raise RefusedError("the address cannot be sent to a mail server") from exc

    async def aclose(self) -> None:
        """Close what is open; nothing may be sent any more."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*[_quit(connection.client) for connection in idle])

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = await self._reusable() or await self._connect()
        try:
            yield connection
        except BaseException:
            connection.client.close()
            raise
        connection.messages += 1
        connection.used_at = self._clock()
        self._idle.append(connection)

    async def _reusable(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            fresh = self._clock() - connection.used_at < MAX_IDLE_S
            if connection.client.is_connected and fresh and connection.messages < MESSAGES_PER_CONNECTION:
                return connection
            await _quit(connection.client)
        return None

    async def _connect(self) -> _Connection:
        client = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            use_tls=self._server.tls,
            start_tls=self._server.start_tls,
            username=self._server.username,
            password=self._server.password,
            timeout=self._timeout_s,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.connect()
        except TimeoutError as exc:
            client.close()
            raise UnreachableError(f"no connection within {self._timeout_s:g} s") from exc
        except (aiosmtplib.SMTPException, OSError, ValueError) as exc:
            client.close()
            raise UnreachableError(_describe(exc)) from exc
        except BaseException:
            client.close()
            raise
        return _Connection(client, self._clock())


async def _hand_over(client: aiosmtplib.SMTP, envelope: Envelope) -> None:
    options = []
    if envelope.internationalised:
        if not client.supports_extension("smtputf8"):
            raise RefusedError("the mail server does not support SMTPUTF8, which this address needs")
        options.append("SMTPUTF8")
    await client.sendmail(envelope.sender, [envelope.recipient], envelope.payload, mail_options=options)


async def _quit(client: aiosmtplib.SMTP) -> None:
    try:
        if client.is_connected:
            # Courtesy: that it fails changes nothing.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=QUIT_TIMEOUT_S)
    finally:
        client.close()


def _verdict(code: int, message: str) -> RefusedError | DeferredError:
    kind = RefusedError if 500 <= code <= 599 else DeferredError
    return kind(f"{code} {message}")


def _describe(exc: Exception) -> str:
    if isinstance(exc, aiosmtplib.SMTPResponseException):
        return f"{exc.code} {exc.message}"
    return str(exc) or type(exc).__name__


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
