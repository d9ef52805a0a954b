"""The e-mail service on a migrated database, without a process; and a mail server to deliver to."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import httpx
import pytest
from aiosmtpd.smtp import SMTP, Envelope, Session

import email_svc
from email_svc.app import Deps, create_app
from email_svc.confirmations import Confirmation, Line, record_confirmations
from email_svc.errors import catalogue
from email_svc.settings import Settings
from email_svc.smtp import Server
from servicekit.auth import by_role
from servicekit.batching import Batcher
from servicekit.boot import can_read
from servicekit.db import Database
from servicekit.metrics import Metrics
from servicekit.migrate import migrate
from servicekit.web import Health

PACKAGE = Path(email_svc.__file__).parent
OPERATOR = {"Authorization": "Bearer operator-token-0123"}
CONDUCTOR = {"Authorization": "Bearer conductor-token-0123"}


def confirmation(order_id: str = "o1", **changes: object) -> Confirmation:
    """A command as the edge makes it."""
    given: dict[str, object] = {
        "recipient": "ada@example.com",
        "name": "Ada Lovelace",
        "currency": "GBP",
        "total_minor": 4348,
        "lines": (Line("BOOK-1", 2, 1999), Line("PEN-7", 1, 350)),
        "ship_to": ("Ada Lovelace", "12 St James Sq", "SW1Y 4JH London", "GB"),
    }
    return Confirmation(order_id, **(given | changes))  # type: ignore[arg-type]  # a test's shorthand


@dataclass
class MailServer:
    """What it took, and what it is to answer next (250 where nothing is scripted)."""

    taken: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    to_recipients: list[str] = field(default_factory=list)
    to_data: list[str] = field(default_factory=list)
    sessions: int = 0
    lose_replies: int = 0
    address: Server = field(default_factory=lambda: Server("127.0.0.1", 0))

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.to_recipients:
            return self.to_recipients.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.to_data:
            return self.to_data.pop(0)
        assert isinstance(envelope.content, bytes)
        self.taken.append(message_from_bytes(envelope.content, policy=policy.default))
        self.recipients += envelope.rcpt_tos
        if self.lose_replies:
            self.lose_replies -= 1
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 OK"


async def start_mail_server(mail: MailServer, *, smtputf8: bool = True) -> asyncio.Server:
    """Let it listen on a free port of loopback."""

    def protocol() -> SMTP:
        mail.sessions += 1
        return SMTP(mail, hostname="localhost", ident="test", enable_SMTPUTF8=smtputf8)

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    mail.address = Server("127.0.0.1", server.sockets[0].getsockname()[1])
    return server


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    """A mail server that knows SMTPUTF8."""
    mail = MailServer()
    server = await start_mail_server(mail)
    yield mail
    server.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The service's database on each engine."""
    migrate(PACKAGE, database_url)
    async with Database(database_url, timeout_s=5) as database:
        yield database


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    """The service's database on SQLite."""
    migrate(PACKAGE, sqlite_url)
    async with Database(sqlite_url, timeout_s=5) as database:
        yield database


@dataclass
class Service:
    """The application, a client of it, and how often it has woken whoever delivers."""

    client: httpx.AsyncClient
    woken: list[bool]


@pytest.fixture(params=["smtp://127.0.0.1:1"])
async def service(
    sqlite: Database, sqlite_url: str, request: pytest.FixtureRequest
) -> AsyncIterator[Service]:
    """The application on SQLite; nobody delivers."""
    settings = Settings(
        database_url=sqlite_url,
        operator_token="operator-token-0123",
        conductor_token="conductor-token-0123",
        nats_url="nats://127.0.0.1:1",
        smtp_url=request.param,
    )
    record = partial(record_confirmations, deliver=settings.server is not None)
    woken: list[bool] = []
    app = create_app(
        Deps(
            database=sqlite,
            confirmations=Batcher(lambda c: sqlite.batch(record, c), max_items=100, max_queue=100),
            wake=lambda: woken.append(True),
            auth=by_role(operator=settings.operator_token, conductor=settings.conductor_token),
            catalogue=catalogue(settings.base_url),
            metrics=Metrics(),
            health=Health(check=lambda: sqlite.read(can_read)),
            settings=settings,
        )
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://email") as client:
        yield Service(client, woken)
