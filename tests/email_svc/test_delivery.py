"""Delivery in the background: what is retried, what bounces, and who may attempt what. Nothing sleeps."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_svc.addresses import parse_sender
from email_svc.confirmations import Claim, Settlement, claim_due, make_all_due, record_confirmations, settle
from email_svc.confirmations import confirmation as stored
from email_svc.delivery import Deliverer, Policy, conclude, retry_after_s
from email_svc.smtp import DeferredError, Envelope, RefusedError, SmtpPool, UnreachableError
from servicekit.db import Database
from tests.email_svc.conftest import MailServer, confirmation

DAY_S = 86_400.0
# The workers' own polling is out of the tests' way; they wake the deliverer themselves.
POLICY = Policy(sender=parse_sender("Duet Shop <orders@shop.example>"), workers=2, claim_size=4, poll_s=60)


@dataclass
class Outcomes:
    """What became of attempts, in order, for tests to wait for."""

    seen: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def next(self, count: int = 1) -> list[str]:
        """The next outcomes, sorted."""
        async with asyncio.timeout(10):
            return sorted([await self.seen.get() for _ in range(count)])


@dataclass
class FakeSender:
    """Takes messages, and fails as scripted first."""

    failures: list[Exception] = field(default_factory=list)
    sent: list[Envelope] = field(default_factory=list)
    hold: asyncio.Event | None = None
    at_once: int = 0
    most_at_once: int = 0
    started: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def begun(self, count: int) -> None:
        """Wait until so many more attempts are under way."""
        async with asyncio.timeout(10):
            for _ in range(count):
                await self.started.acquire()

    async def __call__(self, envelope: Envelope) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.started.release()
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0))
            if self.failures:
                raise self.failures.pop(0)
            self.sent.append(envelope)
        finally:
            self.at_once -= 1


def deliverer(
    database: Database,
    send: Callable[[Envelope], Awaitable[None]],
    outcomes: Outcomes,
    policy: Policy = POLICY,
    **options: Any,
) -> Deliverer:
    return Deliverer(database, send, policy, observe=outcomes.seen.put_nowait, jitter=lambda: 0.5, **options)


async def record(database: Database, *order_ids: str) -> None:
    for _ in range(2):  # a repeated command is delivered no second time
        await database.batch(record_confirmations, [confirmation(order_id) for order_id in order_ids])


async def row(database: Database, order_id: str = "o1") -> Any:
    return await database.read(lambda c: stored(c, order_id))


async def test_what_is_recorded_is_sent_once_and_a_new_one_wakes_the_deliverer(
    database: Database, mail: MailServer
) -> None:
    outcomes = Outcomes()
    pool = SmtpPool(mail.address, size=2, timeout_s=5)
    async with deliverer(database, pool.send, outcomes) as delivering:
        await record(database, "o1", "o2")
        delivering.wake()
        assert await outcomes.next(2) == ["sent", "sent"]
        await record(database, "o3")
        delivering.wake()
        assert await outcomes.next() == ["sent"]
    await pool.aclose()
    assert sorted(m["Message-ID"] for m in mail.taken) == [f"<o{n}@shop.example>" for n in (1, 2, 3)]
    found = await row(database)
    assert (found.delivery, found.attempts, found.reason) == ("sent", 1, None)
    assert found.delivered_at is not None


async def test_4xx_is_retried_until_the_server_takes_it(sqlite: Database, mail: MailServer) -> None:
    outcomes = Outcomes()
    mail.to_recipients.append("451 greylisted")
    mail.to_data.append("452 no space")
    pool = SmtpPool(mail.address, size=2, timeout_s=5)
    await record(sqlite, "o1")
    async with deliverer(sqlite, pool.send, outcomes) as delivering:
        for expected in ("451 greylisted", "452 no space"):
            assert await outcomes.next() == ["deferred"]
            found = await row(sqlite)
            assert (found.delivery, found.reason) == ("queued", expected)
            await sqlite.write(make_all_due)  # as if the backoff had passed
            delivering.wake()
        assert await outcomes.next() == ["sent"]
    await pool.aclose()
    assert (await row(sqlite)).attempts == 3
    assert len(mail.taken) == 1


async def test_5xx_bounces_with_its_reason_and_is_never_tried_again(
    sqlite: Database, mail: MailServer
) -> None:
    outcomes = Outcomes()
    mail.to_recipients.append("550 no such user")
    pool = SmtpPool(mail.address, size=2, timeout_s=5)
    await record(sqlite, "o1")
    async with deliverer(sqlite, pool.send, outcomes) as delivering:
        assert await outcomes.next() == ["bounced"]
        await sqlite.write(make_all_due)
        await record(sqlite, "o2")
        delivering.wake()
        assert await outcomes.next() == ["sent"]
    await pool.aclose()
    found = await row(sqlite)
    assert (found.delivery, found.reason, found.attempts) == ("bounced", "550 no such user", 1)


async def test_a_message_whose_reply_was_lost_goes_out_again_under_the_same_message_id(
    sqlite: Database, mail: MailServer
) -> None:
    outcomes = Outcomes()
    mail.lose_replies = 1
    pool = SmtpPool(mail.address, size=2, timeout_s=5)
    await record(sqlite, "o1")
    async with deliverer(sqlite, pool.send, outcomes) as delivering:
        assert await outcomes.next() == ["deferred"]
        await sqlite.write(make_all_due)
        delivering.wake()
        assert await outcomes.next() == ["sent"]
    await pool.aclose()
    assert [m["Message-ID"] for m in mail.taken] == ["<o1@shop.example>"] * 2


async def test_no_more_attempts_run_at_once_than_there_are_workers(sqlite: Database) -> None:
    outcomes, send = Outcomes(), FakeSender()
    await record(sqlite, *[f"o{n}" for n in range(20)])
    async with deliverer(sqlite, send, outcomes):
        assert await outcomes.next(20) == ["sent"] * 20
    assert send.most_at_once == POLICY.workers
    assert len({envelope.payload.partition(b"Message-ID: ")[2][:20] for envelope in send.sent}) == 20


async def test_one_message_that_cannot_be_made_holds_up_no_other(
    sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes, send = Outcomes(), FakeSender()
    bad = [confirmation("o1", recipient="ada@example.com, secret@example.com"), confirmation("o2")]
    await sqlite.batch(record_confirmations, bad)
    async with deliverer(sqlite, send, outcomes):
        assert await outcomes.next(2) == ["deferred", "sent"]
    assert (await row(sqlite)).delivery == "queued"
    assert len(send.sent) == 1
    assert not any("secret" in str(vars(entry)) for entry in caplog.records)


async def test_a_crashed_process_s_claims_are_due_again_when_sqlite_is_served_anew(sqlite: Database) -> None:
    outcomes, send = Outcomes(), FakeSender()
    await record(sqlite, "o1")
    await sqlite.write(lambda c: claim_due(c, 10, lease_s=3600))  # and then it died
    async with deliverer(sqlite, send, outcomes):
        assert await outcomes.next() == ["sent"]
    assert (await row(sqlite)).attempts == 2


async def test_a_lease_that_ran_out_before_the_attempt_is_left_to_whoever_has_it_now(
    sqlite: Database,
) -> None:
    """The process was paused with claims in hand: they may be another's by now."""
    now = [0.0]
    hold = asyncio.Event()
    outcomes, send = Outcomes(), FakeSender(hold=hold)
    await record(sqlite, "o1", "o2", "o3", "o4")
    async with deliverer(sqlite, send, outcomes, clock=lambda: now[0]):
        await send.begun(POLICY.workers)
        now[0] += POLICY.lease_s
        hold.set()
        assert await outcomes.next(2) == ["sent", "sent"]
    assert len(send.sent) == POLICY.workers


async def test_an_attempt_that_another_process_finished_first_stays_finished(sqlite: Database) -> None:
    hold = asyncio.Event()
    outcomes, send = Outcomes(), FakeSender(hold=hold, failures=[RefusedError("550 no")])
    await record(sqlite, "o1")
    async with deliverer(sqlite, send, outcomes):
        await send.begun(1)
        await sqlite.batch(settle, [Settlement("o1", 2, "sent")])
        hold.set()
        assert await outcomes.next() == ["bounced"]
    assert (await row(sqlite)).delivery == "sent"


async def test_stopping_finishes_the_attempts_under_way_and_gives_the_rest_back(sqlite: Database) -> None:
    hold = asyncio.Event()
    outcomes, send = Outcomes(), FakeSender(hold=hold)
    await record(sqlite, "o1", "o2", "o3", "o4")
    delivering = deliverer(sqlite, send, outcomes)
    async with delivering:
        await send.begun(POLICY.workers)
        asyncio.get_running_loop().call_soon(hold.set)
    assert len(send.sent) == POLICY.workers
    left = await sqlite.write(lambda c: claim_due(c, 10, 60))
    assert len(left) == 2


async def test_stopping_waits_no_longer_than_it_may(sqlite: Database) -> None:
    outcomes, send = Outcomes(), FakeSender(hold=asyncio.Event())
    await record(sqlite, "o1")
    policy = Policy(sender=POLICY.sender, poll_s=60, stop_s=0.01)
    async with asyncio.timeout(10), deliverer(sqlite, send, outcomes, policy):
        await send.begun(1)
    assert (await row(sqlite)).delivery == "queued"


async def test_while_the_server_is_out_of_reach_what_waits_is_not_touched(sqlite: Database) -> None:
    outcomes, send = Outcomes(), FakeSender(failures=[UnreachableError("refused")] * 2)
    await record(sqlite, *[f"o{n}" for n in range(4)])
    async with deliverer(sqlite, send, outcomes):
        assert await outcomes.next(2) == ["deferred", "deferred"]
        for _ in range(20):
            await asyncio.sleep(0)
        assert outcomes.seen.empty()
    assert send.sent == []


def claim(attempt: int = 1, age_s: float = 0.0) -> Claim:
    return Claim(confirmation(), datetime(2026, 11, 22, tzinfo=UTC), attempt, age_s)


def test_only_a_refusal_and_old_age_are_final() -> None:
    errors = [DeferredError("451"), UnreachableError("x"), TimeoutError(), OSError("disk"), KeyError("bug")]
    for error in errors:
        assert conclude(claim(), error, 5 * DAY_S, 0.5).delivery == "queued"
        assert conclude(claim(age_s=5 * DAY_S - 1), error, 5 * DAY_S, 0.5).delivery == "queued"
        assert conclude(claim(age_s=5 * DAY_S), error, 5 * DAY_S, 0.5).delivery == "bounced"
    assert conclude(claim(), RefusedError("550"), 5 * DAY_S, 0.5).delivery == "bounced"
    assert conclude(claim(age_s=9 * DAY_S), None, 5 * DAY_S, 0.5).delivery == "sent"


def test_a_reason_is_one_short_line_whatever_the_server_said() -> None:
    settlement = conclude(claim(), RefusedError("550 \x00no\r\n" + "x" * 5000), 5 * DAY_S, 0.5)
    assert settlement.reason is not None
    assert settlement.reason.startswith("550 no xxx")
    assert len(settlement.reason) <= 300


@given(st.integers(1, 1000), st.floats(0, 1))
def test_retries_wait_from_five_seconds_to_ten_minutes_and_ever_longer(attempt: int, jitter: float) -> None:
    assert 5 <= retry_after_s(attempt, jitter) <= 600
    assert retry_after_s(attempt + 1, jitter) >= retry_after_s(attempt, jitter)


def test_retries_are_spread() -> None:
    assert retry_after_s(3, 1.0) > retry_after_s(3, 0.0) * 1.2


async def test_nothing_personal_is_logged(
    sqlite: Database, mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "email_svc")
    outcomes = Outcomes()
    mail.to_recipients += ["550 <ada@example.com> unknown"]
    pool = SmtpPool(mail.address, size=2, timeout_s=5)
    await record(sqlite, "o1")
    async with deliverer(sqlite, pool.send, outcomes):
        assert await outcomes.next() == ["bounced"]
    await pool.aclose()
    assert any(getattr(entry, "order_id", None) == "o1" for entry in caplog.records)
    assert not any("ada" in str(vars(entry)).lower() for entry in caplog.records)
