"""Handing over to a real mail server on loopback: connections, refusals, and what may pass."""

import asyncio

import pytest

from email_svc.smtp import (
    MAX_IDLE_S,
    MESSAGES_PER_CONNECTION,
    DeferredError,
    Envelope,
    RefusedError,
    Server,
    SmtpPool,
    UnreachableError,
)
from tests.email_svc.conftest import MailServer, start_mail_server


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def envelope(recipient: str = "ada@example.com", internationalised: bool = False) -> Envelope:
    payload = b"Subject: hello\r\nMessage-ID: <o1@shop.example>\r\n\r\n.\r\n..dots\r\n"
    return Envelope("orders@shop.example", recipient, payload, internationalised)


def pool(mail: MailServer, size: int = 2, timeout_s: float = 5, clock: Clock | None = None) -> SmtpPool:
    return SmtpPool(mail.address, size=size, timeout_s=timeout_s, clock=clock or Clock())


async def test_a_message_arrives_as_it_was_and_the_connection_is_kept(mail: MailServer) -> None:
    smtp = pool(mail)
    for _ in range(3):
        await smtp.send(envelope())
    await smtp.aclose()
    assert mail.recipients == ["ada@example.com"] * 3
    assert mail.taken[0].get_content().split() == [".", "..dots"]
    assert mail.sessions == 1


async def test_no_more_connections_are_open_than_the_pool_has(mail: MailServer) -> None:
    smtp = pool(mail, size=2)
    await asyncio.gather(*[smtp.send(envelope()) for _ in range(20)])
    await smtp.aclose()
    assert len(mail.taken) == 20
    assert mail.sessions <= 2


async def test_a_connection_is_replaced_after_many_messages_and_after_idling(mail: MailServer) -> None:
    clock = Clock()
    smtp = pool(mail, clock=clock)
    for _ in range(MESSAGES_PER_CONNECTION):
        await smtp.send(envelope())
    assert mail.sessions == 1
    await smtp.send(envelope())
    assert mail.sessions == 2
    clock.now += MAX_IDLE_S
    await smtp.send(envelope())
    assert mail.sessions == 3
    await smtp.aclose()


@pytest.mark.parametrize("reply", ["550 no such user", "552 mailbox full", "599 never"])
async def test_5xx_to_the_recipient_or_the_data_refuses_the_message(mail: MailServer, reply: str) -> None:
    smtp = pool(mail)
    mail.to_recipients.append(reply)
    with pytest.raises(RefusedError, match=reply):
        await smtp.send(envelope())
    mail.to_data.append(reply)
    with pytest.raises(RefusedError, match=reply):
        await smtp.send(envelope())
    await smtp.send(envelope())
    await smtp.aclose()
    assert len(mail.taken) == 1


@pytest.mark.parametrize("reply", ["421 shutting down", "451 try later"])
async def test_4xx_defers_the_message(mail: MailServer, reply: str) -> None:
    smtp = pool(mail)
    mail.to_recipients.append(reply)
    with pytest.raises(DeferredError, match=reply[:3]):
        await smtp.send(envelope())
    mail.to_data.append(reply)
    with pytest.raises(DeferredError, match=reply[:3]):
        await smtp.send(envelope())
    await smtp.send(envelope())
    await smtp.aclose()
    assert len(mail.taken) == 1


async def test_a_reply_lost_after_the_data_defers_and_the_next_message_gets_a_new_connection(
    mail: MailServer,
) -> None:
    smtp = pool(mail)
    mail.lose_replies = 1
    with pytest.raises(DeferredError):
        await smtp.send(envelope())
    await smtp.send(envelope())
    await smtp.aclose()
    assert [message["Message-ID"] for message in mail.taken] == ["<o1@shop.example>"] * 2
    assert mail.sessions == 2


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    mail = MailServer()
    server = await start_mail_server(mail)
    server.close()
    await server.wait_closed()
    with pytest.raises(UnreachableError):
        await pool(mail).send(envelope())


async def test_a_server_that_never_greets_is_unreachable_after_the_timeout() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    mail = MailServer(address=Server("127.0.0.1", server.sockets[0].getsockname()[1]))
    with pytest.raises(UnreachableError):
        await pool(mail, timeout_s=0.05).send(envelope())
    server.close()


async def test_an_international_local_part_needs_a_server_that_knows_smtputf8(mail: MailServer) -> None:
    smtp = pool(mail)
    await smtp.send(envelope("adä@example.com", internationalised=True))
    await smtp.aclose()
    assert mail.recipients == ["adä@example.com"]
    plain = MailServer()
    server = await start_mail_server(plain, smtputf8=False)
    smtp = pool(plain)
    with pytest.raises(RefusedError, match="SMTPUTF8"):
        await smtp.send(envelope("adä@example.com", internationalised=True))
    await smtp.send(envelope())
    await smtp.aclose()
    server.close()
    assert plain.recipients == ["ada@example.com"]


@pytest.mark.parametrize("recipient", ["a@x.org>\r\nDATA", "a@x.org\r\nRCPT TO:<b@x.org>"])
async def test_no_recipient_smuggles_a_command(mail: MailServer, recipient: str) -> None:
    smtp = pool(mail)
    await smtp.send(envelope(recipient))
    await smtp.aclose()
    assert mail.recipients == ["a@x.org"]


async def test_an_address_that_no_command_can_carry_is_refused_for_good(mail: MailServer) -> None:
    smtp = pool(mail)
    with pytest.raises(RefusedError):
        await smtp.send(envelope("a\x01b@x.org"))
    await smtp.aclose()
    assert mail.taken == []


async def test_a_cancelled_send_gives_its_place_back(mail: MailServer) -> None:
    smtp = pool(mail, size=1)
    for _ in range(5):
        sending = asyncio.create_task(smtp.send(envelope()))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    await asyncio.wait_for(smtp.send(envelope()), 5)
    await smtp.aclose()
    assert len(mail.taken) == 1


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Server("127.0.0.1", 25), None),
        (Server("mail.example", 587, username="u", password="p"), True),
        (Server("127.0.0.1", 587, username="u", password="p"), None),
        (Server("mail.example", 465, tls=True, username="u", password="p"), False),
    ],
)
def test_a_password_goes_over_a_network_only_encrypted(server: Server, expected: bool | None) -> None:
    assert server.start_tls is expected
