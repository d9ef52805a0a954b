"""`duet listen`: hears every event once and in order, whatever the broker does, and nobody waits for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext

from lab import audience, listen
from lab.audience import hear
from tests.lab.at_broker import at_broker, event_of, lead_to_broker
from tests.lab.fake_system import FakeSystem, make_fake, run_command
from tests.support.broker import Broker

WITHIN_S = 20


@pytest.fixture
def fake(tmp_path: Path, broker: Broker) -> FakeSystem:
    """A system whose broker holds three events."""
    made = make_fake(tmp_path)
    lead_to_broker(made, broker)
    at_broker(broker, lambda jetstream: declare_and_emit(jetstream, "a", "b", "c"))
    return made


async def declare_and_emit(jetstream: JetStreamContext, *order_ids: str) -> None:
    await jetstream.add_stream(name="ORDERS", subjects=["orders.created"])
    await emit(jetstream, *order_ids)


async def emit(jetstream: JetStreamContext, *order_ids: str) -> None:
    for order_id in order_ids:
        await jetstream.publish("orders.created", json.dumps(event_of(order_id)).encode())


def heard_by(fake: FakeSystem, *arguments: str) -> Any:
    return run_command(listen, fake, "listen", *arguments)


def test_from_the_start_it_prints_what_the_broker_keeps_without_the_customer(fake: FakeSystem) -> None:
    result = heard_by(fake, "--from-start", "--count", "3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "#1  a  43.48 GBP  to London, GB"
    assert lines[1].startswith("    2 x BOOK-1, 1 x PEN-7; ")
    assert [line.split()[:2] for line in lines[::2]] == [["#1", "a"], ["#2", "b"], ["#3", "c"]]
    for personal in ("Ada", "ada@example.com", "St James"):
        assert personal not in result.output
    assert "heard 3 events" in result.stderr


def test_json_is_each_event_whole_and_one_a_line(fake: FakeSystem) -> None:
    result = heard_by(fake, "--from-start", "--count", "3", "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [event_of(each) for each in "abc"]


def test_without_from_start_it_prints_only_what_comes_from_then_on(fake: FakeSystem, broker: Broker) -> None:
    emitter = Thread(target=at_broker, args=(broker, emit_once_somebody_listens))
    emitter.start()
    result = heard_by(fake, "--count", "1", "--for", str(WITHIN_S))
    emitter.join(WITHIN_S)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].startswith("#4  d  ")


async def emit_once_somebody_listens(jetstream: JetStreamContext) -> None:
    for _ in range(WITHIN_S * 100):
        if await jetstream.consumers_info("ORDERS"):
            break
        await asyncio.sleep(0.01)
    await emit(jetstream, "d")


def test_it_leaves_no_durable_and_claims_no_part(fake: FakeSystem, broker: Broker) -> None:
    heard_by(fake, "--from-start", "--count", "3")
    (left,) = at_broker(broker, lambda jetstream: jetstream.consumers_info("ORDERS"))
    assert left.config.durable_name is None
    assert "duet.outcome" not in (left.config.metadata or {})
    assert left.config.inactive_threshold == audience.FORGET_S


def test_a_time_that_is_over_before_the_count_is_exit_one_and_without_a_count_it_is_the_end(
    fake: FakeSystem,
) -> None:
    assert heard_by(fake, "--from-start", "--for", "0.2").exit_code == 0
    result = heard_by(fake, "--from-start", "--count", "4", "--for", "0.2")
    assert result.exit_code == 1
    assert "heard 3 events" in result.stderr


@pytest.mark.parametrize(
    "poison",
    [
        b"not json",
        b"[]",
        b"{}",
        json.dumps(event_of("x", currency="???")).encode(),
        b'{"data": {"lines": 3}}',
    ],
)
def test_what_is_no_order_created_is_said_and_ends_nothing(
    fake: FakeSystem, broker: Broker, poison: bytes
) -> None:
    at_broker(broker, lambda jetstream: jetstream.publish("orders.created", poison))
    result = heard_by(fake, "--from-start", "--count", "4")
    assert result.exit_code == 0, result.output
    assert f"#4  cannot be read as an OrderCreated ({len(poison)} bytes)" in result.stdout
    assert heard_by(fake, "--from-start", "--count", "4", "--json").exit_code == 0


def test_hostile_text_reaches_the_terminal_without_its_escapes(fake: FakeSystem, broker: Broker) -> None:
    lines = [{"sku": "\x1b[2J[red]BOOM\nfake", "quantity": 1}] * 7
    hostile = json.dumps(event_of("x", lines=lines)).encode()
    at_broker(broker, lambda jetstream: jetstream.publish("orders.created", hostile))
    result = heard_by(fake, "--from-start", "--count", "4")
    assert "\x1b" not in result.output
    assert "[red]BOOM fake" in result.stdout
    assert "and 2 more" in result.stdout


@asynccontextmanager
async def hearing(broker: Broker, **options: Any) -> AsyncIterator[Callable[[int], Any]]:
    """A function that returns the next so many messages, as (sequence, order id)."""
    connection = await nats.connect(
        broker.url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore
    )
    try:
        async with aclosing(hear(connection.jetstream(), "ORDERS", "orders.created", **options)) as messages:

            async def following(number: int) -> list[tuple[int, str]]:
                async with asyncio.timeout(WITHIN_S):
                    found = [await anext(messages) for _ in range(number)]
                return [(message.sequence, json.loads(message.data)["id"]) for message in found]

            yield following
    finally:
        await connection.close()


async def ignore(_: Exception) -> None:
    pass


async def emitting(broker: Broker, work: Callable[[JetStreamContext], Any]) -> None:
    """`at_broker` for a test that has an event loop."""
    await asyncio.to_thread(at_broker, broker, work)


async def test_a_broker_that_was_restarted_is_heard_on_without_a_gap_or_a_repeat(broker: Broker) -> None:
    await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "a", "b"))
    async with hearing(broker, from_start=True) as following:
        assert await following(2) == [(1, "a"), (2, "b")]
        broker.restart()
        await emitting(broker, lambda jetstream: emit(jetstream, "c", "d"))
        assert await following(2) == [(3, "c"), (4, "d")]


async def test_a_broker_that_was_wiped_is_heard_from_its_new_start(broker: Broker) -> None:
    await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "a", "b", "c"))
    notices: list[str] = []
    async with hearing(broker, from_start=True, notice=notices.append) as following:
        await following(3)
        broker.wipe()
        await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "d"))
        assert await following(1) == [(1, "d")]
    assert any("made anew" in notice for notice in notices)


async def test_a_stream_that_is_not_there_yet_is_waited_for_and_heard_from_its_start(broker: Broker) -> None:
    told = asyncio.Event()
    async with hearing(broker, notice=lambda _: told.set()) as following:
        first = asyncio.create_task(following(1))
        async with asyncio.timeout(WITHIN_S):
            await told.wait()
        await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "a"))
        assert await first == [(1, "a")]


async def test_silence_is_no_trouble(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience, "QUIET_S", 0.002)
    await emitting(broker, declare_and_emit)
    notices: list[str] = []
    async with hearing(broker, notice=notices.append) as following:
        first = asyncio.create_task(following(1))
        await asyncio.sleep(0.3)
        await emitting(broker, lambda jetstream: emit(jetstream, "a"))
        assert await first == [(1, "a")]
    assert notices == []


async def test_a_consumer_that_the_broker_has_dropped_is_replaced_behind_the_last_one_heard(
    broker: Broker,
) -> None:
    await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "a"))
    async with hearing(broker, from_start=True) as following:
        assert await following(1) == [(1, "a")]
        await emitting(broker, drop_consumers_and_emit)
        assert await following(1) == [(2, "b")]


async def drop_consumers_and_emit(jetstream: JetStreamContext) -> None:
    for consumer in await jetstream.consumers_info("ORDERS"):
        await jetstream.delete_consumer("ORDERS", consumer.name)
    await emit(jetstream, "b")


async def test_what_was_lost_on_its_way_is_asked_for_again(broker: Broker) -> None:
    """Another reader takes one message of the consumer, which therefore never reaches us."""
    await emitting(broker, lambda jetstream: declare_and_emit(jetstream, "a"))
    async with hearing(broker, from_start=True) as following:
        assert await following(1) == [(1, "a")]
        await emitting(broker, steal_one)
        assert await following(2) == [(2, "b"), (3, "c")]


async def steal_one(jetstream: JetStreamContext) -> None:
    (consumer,) = await jetstream.consumers_info("ORDERS")
    await emit(jetstream, "b")
    thief = await jetstream.pull_subscribe_bind(consumer.name, "ORDERS")
    await thief.fetch(1, 5)
    await emit(jetstream, "c")
