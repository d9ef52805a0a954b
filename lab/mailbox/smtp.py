"""The SMTP side: it answers 250 to a message only once the message is on disk.

Refused: more than 1 MiB (552), more than 100 recipients (452), more than 100 clients at once (421), and what
the disk does not take (452, to be tried again). `bounce@…` answers 550 and `defer@…` 451, to try that out.
"""

import asyncio
from concurrent.futures import Executor
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from lab.mailbox.store import MailStore

MESSAGE_LIMIT_BYTES = 1024 * 1024
RECIPIENTS = 100
CLIENTS = 100
IDLE_S = 300.0  # RFC 5321, 4.5.3.2.7: a server waits five minutes for the next command


class Handler:
    """What aiosmtpd calls for each recipient and each message; disk work goes to `executor`."""

    def __init__(self, store: MailStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Accept anybody, but for the two local parts that stand for failures."""
        local = address.partition("@")[0].lower()
        if local == "bounce":
            return "550 5.1.1 no such mailbox: this local part always bounces"
        if local == "defer":
            return "451 4.2.1 try again later: this local part is always deferred"
        if len(envelope.rcpt_tos) >= RECIPIENTS:
            return "452 4.5.3 too many recipients"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep the message, and only then say so."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        loop = asyncio.get_running_loop()
        try:
            entry = await loop.run_in_executor(
                self._executor,
                self._store.add,
                envelope.mail_from or "",
                list(envelope.rcpt_tos),
                content,
            )
        except OSError as error:
            return f"452 4.3.1 cannot keep the message now ({error.strerror})"
        return f"250 2.0.0 OK kept as {entry.id}"


class BoundedSMTP(SMTP):
    """One client's session; beyond `CLIENTS` at once, a client is told to come back."""

    clients = 0
    refused = False

    def connection_made(self, transport: Any) -> None:
        """Begin the session, or say 421 and close."""
        if BoundedSMTP.clients >= CLIENTS:
            self.refused = True
            transport.write(b"421 4.3.2 too many clients, come back later\r\n")
            transport.close()
            return
        BoundedSMTP.clients += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End the session."""
        if not self.refused:
            BoundedSMTP.clients -= 1
            super().connection_lost(error)


async def serve_smtp(host: str, port: int, store: MailStore, executor: Executor) -> asyncio.Server:
    """Listen for mail; raise `OSError` where the port is in use."""
    loop = asyncio.get_running_loop()
    handler = Handler(store, executor)

    def session() -> BoundedSMTP:
        return BoundedSMTP(
            handler,
            data_size_limit=MESSAGE_LIMIT_BYTES,
            enable_SMTPUTF8=True,
            hostname="mailbox.localhost",
            ident="duet mailbox",
            timeout=IDLE_S,
            loop=loop,
        )

    return await loop.create_server(session, host, port)
