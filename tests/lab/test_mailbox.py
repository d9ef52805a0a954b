"""The mailbox: what it accepts is on disk, bounded, and shown without trusting it."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path
from unittest.mock import patch

import aiosmtplib
import httpx
import pytest

from lab.mailbox import smtp
from lab.mailbox.__main__ import read_settings
from lab.mailbox.page import create_app
from lab.mailbox.store import MailStore

HOSTILE = "<script>alert(1)</script>"


def make_store(folder: Path, max_messages: int = 100, max_bytes: int = 10_000_000) -> MailStore:
    store = MailStore(folder, max_messages, max_bytes)
    store.open()
    return store


def make_mail(to: str = "ada@example.com", subject: str = "Your order", key: str = "0199") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", to, subject
    mail["Message-ID"] = f"<{key}@duet.example>"
    mail.set_content("Thank you, Ada: £43.48\n")
    mail.add_alternative(f"<p>Thank you</p>{HOSTILE}", subtype="html")
    return mail


@contextlib.asynccontextmanager
async def serving(store: MailStore) -> AsyncIterator[aiosmtplib.SMTP]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        server = await smtp.serve_smtp("127.0.0.1", 0, store, executor)
        port = server.sockets[0].getsockname()[1]
        try:
            async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=5) as client:
                yield client
        finally:
            server.close()


def reading(store: MailStore, ready: bool = True) -> httpx.AsyncClient:
    app = create_app(store, lambda: ready, ["127.0.0.1", "localhost"])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8026")


async def test_an_accepted_message_is_there_after_a_restart(tmp_path: Path) -> None:
    async with serving(make_store(tmp_path)) as client:
        _, reply = await client.send_message(make_mail(subject="Your order – £43.48"))
        assert reply.startswith("2.0.0 OK")
    count, entries = make_store(tmp_path).newest(10)
    assert count == 1
    assert (entries[0].sender, entries[0].to) == ("shop@example.com", ("ada@example.com",))
    assert entries[0].subject == "Your order – £43.48"
    assert entries[0].message_id == "<0199@duet.example>"


async def test_a_message_is_synced_with_its_folder_before_it_is_accepted(tmp_path: Path) -> None:
    store, synced = make_store(tmp_path), []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        real(descriptor)

    async with serving(store) as client:
        with patch("lab.mailbox.store.os.fsync", fsync):
            await client.send_message(make_mail())
            assert synced == ["file", "folder"]


async def test_a_full_disk_is_a_reason_to_try_again_and_leaves_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with serving(store) as client:
        with patch("lab.mailbox.store.os.fsync", full), pytest.raises(aiosmtplib.SMTPDataError) as caught:
            await client.send_message(make_mail())
        assert caught.value.code == 452
        assert os.listdir(tmp_path) == []
        await client.send_message(make_mail())
    assert store.newest(10)[0] == 1


@pytest.mark.parametrize(("to", "code"), [("bounce@example.com", 550), ("Defer@example.com", 451)])
async def test_two_local_parts_stand_for_failures(tmp_path: Path, to: str, code: int) -> None:
    store = make_store(tmp_path)
    async with serving(store) as client:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as caught:
            await client.send_message(make_mail(to))
        assert caught.value.recipients[0].code == code
        await client.send_message(make_mail("grace@example.com"))
    assert [entry.to for entry in store.newest(10)[1]] == [("grace@example.com",)]


async def test_a_message_over_a_mebibyte_is_refused_for_good(tmp_path: Path) -> None:
    mail = make_mail()
    mail.add_attachment(b"x" * smtp.MESSAGE_LIMIT_BYTES, maintype="application", subtype="zip")
    async with serving(make_store(tmp_path)) as client:
        with pytest.raises(aiosmtplib.SMTPResponseException) as caught:
            await client.send_message(mail)
    assert caught.value.code == 552


async def test_clients_over_the_bound_are_told_to_come_back_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "CLIENTS", 1)
    async with serving(make_store(tmp_path)) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        assert (await reader.read()).startswith(b"421 4.3.2")
        writer.close()
        await client.send_message(make_mail())
    assert smtp.BoundedSMTP.clients == 0


def test_the_oldest_messages_make_room_by_count(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_messages=3)
    for number in range(5):
        store.add("a@example.com", ["b@example.com"], make_mail(key=str(number)).as_bytes())
    assert [entry.message_id for entry in store.newest(10)[1]] == [f"<{n}@duet.example>" for n in (4, 3, 2)]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_oldest_messages_make_room_by_size_and_after_a_restart_too(tmp_path: Path) -> None:
    store = make_store(tmp_path, max_bytes=5_000)
    for _ in range(10):
        store.add("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\n" + b"y" * 1_000)
    assert store.newest(10)[0] == 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5_000
    assert make_store(tmp_path, max_messages=2).newest(10)[0] == 2


def test_what_was_never_accepted_and_what_is_not_ours_is_not_shown(tmp_path: Path) -> None:
    make_store(tmp_path).add("a@example.com", ["b@example.com"], b"Subject: mine\r\n\r\nx")
    (tmp_path / "0199.draft").write_bytes(b"X-Mailbox-Env")
    (tmp_path / "strange.eml").write_bytes(b"Subject: somebody else's\r\n\r\n")
    store = make_store(tmp_path)
    assert [entry.subject for entry in store.newest(10)[1]] == ["mine"]
    assert not (tmp_path / "0199.draft").exists()
    assert (tmp_path / "strange.eml").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"no header at all",
        b"Message-ID: <<<[\r\nSubject: =?x-unknown?B?//8=?=\r\n\r\nbody",
        b"Content-Type: text/plain; charset=x-nobody-knows\r\n\r\n\xff\xfe",
        b"Content-Type: multipart/alternative\r\n\r\nno boundary",
        b"To: \xff\r\nMessage-ID: [\r\nFrom: ,,;;<\r\n\r\n",
        b"Subject: \xff\xfe\r\nX-\xff: \xed\xa0\x80\r\nMessage-ID: \xed\xa0\x80\r\n\r\n",
    ],
)
async def test_a_malformed_message_is_kept_and_shown_all_the_same(tmp_path: Path, content: bytes) -> None:
    store = make_store(tmp_path)
    entry = store.add("a\udcff@example.com", ["b\udcff@example.com"], content)
    async with reading(store) as client:
        for path in ("/", f"/messages/{entry.id}", "/api/messages", f"/api/messages/{entry.id}"):
            assert (await client.get(path)).status_code == 200


async def test_messages_are_found_by_address_and_by_order(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.add("s@example.com", ["Ada@example.com"], make_mail(key="order-1").as_bytes())
    store.add("s@example.com", ["bob@example.com"], make_mail(key="order-2").as_bytes())
    async with reading(store) as client:
        by_address = (await client.get("/api/messages", params={"to": "ada@EXAMPLE.com"})).json()
        by_order = (await client.get("/api/messages", params={"order": "order-2"})).json()
        nothing = (await client.get("/api/messages", params={"limit": 0})).json()
        assert (await client.get("/api/messages", params={"limit": "x"})).status_code == 400
    assert (by_address["count"], by_address["messages"][0]["to"]) == (1, ["Ada@example.com"])
    assert (by_order["count"], by_order["messages"][0]["message_id"]) == (1, "<order-2@duet.example>")
    assert nothing == {"count": 2, "messages": []}


async def test_a_message_is_told_with_its_text_and_html(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    entry = store.add("shop@example.com", ["ada@example.com"], make_mail().as_bytes())
    async with reading(store) as client:
        told = (await client.get(f"/api/messages/{entry.id}")).json()
        assert (await client.get("/api/messages/..%2Fx")).status_code == 404
        assert (await client.get("/messages/none")).status_code == 404
    assert told["text"] == "Thank you, Ada: £43.48\n"
    assert "<p>Thank you</p>" in told["html"]
    assert ["Subject", "Your order"] in told["headers"]


async def test_what_a_mail_says_is_never_part_of_the_page(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    mail = make_mail(subject=HOSTILE)
    mail.get_body(("plain",)).set_content(HOSTILE)  # type: ignore[union-attr]  # made above, so it is there
    mail["X-Custom"] = HOSTILE
    entry = store.add(HOSTILE, [HOSTILE], mail.as_bytes())
    async with reading(store) as client:
        for path in ("/", f"/messages/{entry.id}"):
            page = await client.get(path)
            assert HOSTILE not in page.text
            assert "&lt;script&gt;" in page.text
            assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_html_of_a_mail_is_served_in_a_sandbox(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    entry = store.add("shop@example.com", ["ada@example.com"], make_mail().as_bytes())
    async with reading(store) as client:
        page = await client.get(f"/messages/{entry.id}")
        html = await client.get(f"/messages/{entry.id}/html")
    assert f'<iframe sandbox src="/messages/{entry.id}/html"' in page.text
    policy = html.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none'")
    assert "allow-" not in policy
    assert "script-src" not in policy


async def test_a_name_that_points_here_from_elsewhere_is_not_answered(tmp_path: Path) -> None:
    async with reading(make_store(tmp_path)) as client:
        assert (await client.get("/", headers={"host": "evil.example:8026"})).status_code == 400


async def test_it_is_ready_only_while_it_takes_mail(tmp_path: Path) -> None:
    async with reading(make_store(tmp_path), ready=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAILBOX_PORT", "x"),
        ("MAILBOX_MAX_BYTES", "-1"),
        ("MAILBOX_HOST", "192.0.2.1"),
        ("MAILBOX_HOST", "here"),
    ],
)
def test_bad_settings_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name}|{value}"):
        read_settings({name: value})
