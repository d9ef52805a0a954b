"""The bus, on a real broker: what is published is stored, what is lost is noticed, nothing waits for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import nats
import pytest

import servicekit.bus
from servicekit import link
from servicekit.bus import Bus, BusUnavailableError, Message, Pull, sortable
from tests.servicekit.kettle import TEAS, WANTED, bus_to, settings_for, until
from tests.support.broker import Broker, running_broker
from tests.support.threads import needs_threads, states_of_threads

WAIT_S = 0.3
USERS = """users: [
  {user: kettle, password: "steam", permissions: {
    publish: ["teas.wanted", "$JS.API.CONSUMER.CREATE.TEAS.kettle.teas.wanted",
              "$JS.API.CONSUMER.MSG.NEXT.TEAS.kettle", "$JS.ACK.TEAS.kettle.>"],
    subscribe: ["_INBOX_kettle.>"]}},
  {user: keeper, password: "sugar"}
]"""


@pytest.fixture
async def bus(broker: Broker) -> AsyncIterator[Bus]:
    async with bus_to(broker.url) as connected:
        await connected.ensure_stream(TEAS)
        await connected.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
        yield connected


@pytest.fixture
def pull(bus: Bus) -> Pull:
    return bus.pull("TEAS", "kettle")


async def bodies(pull: Pull, max_items: int = 10) -> list[bytes]:
    return [message.data for message in await pull.fetch(max_items, WAIT_S)]


async def test_a_published_message_is_stored_and_pulled(bus: Bus, pull: Pull) -> None:
    published = await bus.publish(WANTED, b"green")
    assert (published.stream, published.sequence) == ("TEAS", 1)
    [message] = await pull.fetch(10, WAIT_S)
    assert (message.data, message.subject, message.sequence, message.tries) == (b"green", WANTED, 1, 1)


async def test_messages_that_are_published_together_are_stored_in_order(bus: Bus, pull: Pull) -> None:
    teas = [b"tea %d" % number for number in range(100)]
    await bus.publish(WANTED, b"before")
    published = await bus.publish_all(WANTED, teas)
    assert [each.sequence for each in published] == list(range(2, 102))
    assert await bodies(pull, 200) == [b"before", *teas]
    assert [each.sequence for each in await bus.publish_all(WANTED, [b"alone"])] == [102]
    assert await bus.publish_all(WANTED, []) == []


async def test_a_stream_that_takes_no_batches_gets_its_messages_one_by_one(broker: Broker, bus: Bus) -> None:
    """As one that was made before there were any, until checkout declares it anew."""
    client = await nats.connect(broker.url)
    await client.jetstream().delete_stream("TEAS")
    await client.jetstream().add_stream(name="TEAS", subjects=["teas.*"])
    await client.close()
    assert await bus._publish_atomically(WANTED, [b"white", b"red"], 2.0) is None
    published = await bus.publish_all(WANTED, [b"green", b"black"])
    assert [each.sequence for each in published] == [1, 2]


async def test_a_broker_that_knows_no_batches_is_noticed(
    bus: Bus, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stores each message as it comes and acknowledges the last: what came of the others is unknown."""
    headers = servicekit.bus._batch_headers
    monkeypatch.setattr(
        servicekit.bus, "_batch_headers", lambda *given: {"Content-Type": headers(*given)["Content-Type"]}
    )
    monkeypatch.setattr(servicekit.bus, "COMMIT", "X-Unknown")
    assert len(await bus.publish_all(WANTED, [b"green", b"black"])) == 2
    assert set(await bodies(pull)) == {b"green", b"black"}
    assert len(await bus.publish_all(WANTED, [b"white", b"red"])) == 2
    assert sorted(await bodies(pull)) == [b"red", b"white"]


async def test_a_message_that_comes_later_ends_the_wait(bus: Bus, pull: Pull) -> None:
    waiting = asyncio.create_task(pull.fetch(10, 30))
    await asyncio.sleep(0.05)
    await bus.publish(WANTED, b"green")
    async with asyncio.timeout(5):
        [message] = await waiting
    assert message.data == b"green"


async def test_a_fetch_takes_what_there_is_up_to_its_bound(bus: Bus, pull: Pull) -> None:
    for number in range(5):
        await bus.publish(WANTED, b"%d" % number)
    assert await bodies(pull, 3) == [b"0", b"1", b"2"]
    assert await bodies(pull, 3) == [b"3", b"4"]
    assert await bodies(pull, 3) == []


async def test_what_is_acknowledged_or_dropped_never_comes_again(bus: Bus, pull: Pull) -> None:
    await bus.publish(WANTED, b"green")
    await bus.publish(WANTED, b"black")
    first, second = await pull.fetch(10, WAIT_S)
    await first.ack()
    await second.drop()
    assert await bodies(pull) == []
    [durable] = await bus.durables("TEAS")
    assert (durable.name, durable.ack_floor) == ("kettle", 2)


async def test_what_is_put_off_comes_again_and_counts_its_tries(bus: Bus, pull: Pull) -> None:
    await bus.publish(WANTED, b"green")
    [message] = await pull.fetch(10, WAIT_S)
    await message.retry(0.05)
    [again] = await pull.fetch(10, 5)
    assert (again.data, again.tries) == (b"green", 2)


async def test_what_is_being_worked_on_is_delivered_to_nobody_else(bus: Bus, pull: Pull) -> None:
    await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=1)
    await bus.publish(WANTED, b"green")
    [message] = await pull.fetch(10, WAIT_S)
    for _ in range(6):
        await message.working()
        assert await bodies(pull) == []
    [again] = await pull.fetch(10, 5)
    assert again.tries == 2


async def test_declaring_twice_changes_nothing_and_another_way_changes_that(bus: Bus) -> None:
    await bus.publish(WANTED, b"green")
    before = await bus.stream_state("TEAS")
    assert await bus.ensure_stream(TEAS) == before
    assert (before.first_sequence, before.last_sequence) == (1, 1)
    changed = await bus.ensure_stream(replace(TEAS, max_age_s=60, max_bytes=1_000_000))
    assert changed == before


async def test_a_durable_keeps_its_metadata_and_its_place_when_it_is_declared_again(
    bus: Bus, pull: Pull
) -> None:
    await bus.publish(WANTED, b"green")
    [message] = await pull.fetch(10, WAIT_S)
    await message.ack()
    for _ in range(2):
        await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=20, metadata={"steam": "yes"})
    [durable] = await bus.durables("TEAS")
    assert (durable.ack_floor, durable.metadata["steam"]) == (1, "yes")
    assert await bodies(pull) == []


async def test_a_durable_tells_how_far_it_has_come_also_when_it_is_declared_again(
    bus: Bus, pull: Pull
) -> None:
    for tea in (b"green", b"black", b"white"):
        await bus.publish(WANTED, tea)
    one, two = await pull.fetch(2, WAIT_S)
    await two.ack()

    async def seen() -> list[tuple[int, int, int]]:
        declared = await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
        [listed] = await bus.durables("TEAS")
        return [(each.ack_floor, each.delivered, each.waiting) for each in (declared, listed)]

    # The first is still worked on: the floor stays below it.
    async with asyncio.timeout(5):
        while await seen() != [(0, 2, 2)] * 2:  # noqa: ASYNC110 - the broker settles in the background
            await asyncio.sleep(0.01)
    await one.ack()
    async with asyncio.timeout(5):
        while await seen() != [(2, 2, 1)] * 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_all_durables_are_listed(bus: Bus) -> None:
    names = [f"cup{number}" for number in range(260)]  # the broker lists 256 a page
    for name in names:
        await bus.ensure_durable("TEAS", name, WANTED, ack_wait_s=10)
    durables = await bus.durables("TEAS")
    assert sorted(durable.name for durable in durables) == sorted(["kettle", *names])


def test_stamps_of_the_broker_sort_as_text() -> None:
    stamps = ["00Z", "00.1Z", "00.12Z", "00.123456789Z", "00.2Z", "01Z"]
    made = [sortable(f"2026-11-23T00:00:{stamp}") for stamp in stamps]
    assert made == sorted(made)
    assert made[1] == "2026-11-23T00:00:00.100000000Z"


async def test_a_broker_that_is_killed_is_noticed_at_once_and_found_again(
    broker: Broker, bus: Bus, pull: Pull
) -> None:
    connections: list[None] = []
    bus.on_connected.append(lambda: connections.append(None))
    await bus.publish(WANTED, b"green")
    assert await bodies(pull) == [b"green"]
    waiting = asyncio.create_task(pull.fetch(10, 60))
    publishing = [asyncio.create_task(bus.publish("nobody.stores.this", b"x", 60))]
    await asyncio.sleep(0.05)
    broker.kill()
    async with asyncio.timeout(5):
        with pytest.raises(BusUnavailableError):
            await waiting
        await asyncio.wait(publishing)
    assert isinstance(publishing[0].exception(), BusUnavailableError)
    with pytest.raises(BusUnavailableError, match="no connection"):
        await bus.publish(WANTED, b"lost", 60)
    broker.start()
    await until(lambda: bus.connected)
    await bus.publish(WANTED, b"black")
    assert b"black" in await bodies(pull)
    assert connections == [None]


@pytest.mark.parametrize("settle", [Message.ack, Message.drop, Message.working, lambda each: each.retry(9)])
async def test_what_a_lost_connection_brought_is_settled_on_no_other(
    broker: Broker, bus: Bus, pull: Pull, settle: Callable[[Message], Awaitable[None]]
) -> None:
    """On a broker that was wiped another message has its place, and would never be heard."""
    await bus.publish(WANTED, b"green")
    [old] = await pull.fetch(10, WAIT_S)
    broker.wipe()
    await until(lambda: not bus.connected)
    await until(lambda: bus.connected)
    await bus.ensure_stream(TEAS)
    await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=1)
    await bus.publish(WANTED, b"black")
    assert await bodies(pull) == [b"black"]
    with pytest.raises(BusUnavailableError):
        await settle(old)
    [again] = await pull.fetch(10, 5)
    assert (again.data, again.tries) == (b"black", 2)


async def test_nothing_that_was_published_while_away_is_sent_later(broker: Broker, bus: Bus) -> None:
    broker.kill()
    await until(lambda: not bus.connected)
    with pytest.raises(BusUnavailableError):
        await bus.publish(WANTED, b"lost")
    broker.start()
    await until(lambda: bus.connected)
    assert (await bus.stream_state("TEAS")).last_sequence == 0


async def test_a_wiped_broker_is_told_from_an_idle_one(broker: Broker, bus: Bus, pull: Pull) -> None:
    before = await bus.stream_state("TEAS")
    broker.wipe()
    await until(lambda: not bus.connected)
    await until(lambda: bus.connected)
    with pytest.raises(BusUnavailableError):
        await bus.publish(WANTED, b"green")
    with pytest.raises(BusUnavailableError):
        await pull.fetch(10, 60)
    with pytest.raises(BusUnavailableError):
        await bus.durables("TEAS")
    with pytest.raises(BusUnavailableError):
        await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
    assert (await bus.ensure_stream(TEAS)).created > before.created
    await bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
    await bus.publish(WANTED, b"green")
    assert await bodies(pull) == [b"green"]


async def test_a_consumer_that_is_deleted_ends_the_wait(bus: Bus, pull: Pull) -> None:
    waiting = asyncio.create_task(pull.fetch(10, 60))
    await asyncio.sleep(0.05)
    await bus._api("CONSUMER.DELETE.TEAS.kettle")
    async with asyncio.timeout(5):
        with pytest.raises(BusUnavailableError):
            await waiting


@needs_threads
def test_a_broker_whose_pause_has_returned_is_paused_in_all_its_threads(broker: Broker) -> None:
    for _ in range(50):
        broker.pause()
        assert set(states_of_threads(broker.pid)) == {"T"}
        broker.resume()


async def test_a_paused_broker_costs_no_more_than_the_timeout(broker: Broker, bus: Bus, pull: Pull) -> None:
    broker.pause()
    with pytest.raises(BusUnavailableError, match=r"0\.2 s"):
        await bus.publish(WANTED, b"green", 0.2)
    with pytest.raises(BusUnavailableError):
        await pull.fetch(10, 0.2)
    broker.resume()
    # Unknown is not failed: it was stored all the same.
    await until(lambda: bus.connected)
    assert await bodies(pull) == [b"green"]


async def test_a_broker_that_stays_silent_is_given_up_and_found_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_INTERVAL_S", 0.2)
    monkeypatch.setattr(link, "LOOK_INTERVAL_S", 0.1)
    async with bus_to(broker.url) as bus:
        await bus.ensure_stream(TEAS)
        broker.pause()
        await until(lambda: not bus.connected)
        broker.resume()
        await until(lambda: bus.connected)
        assert (await bus.publish(WANTED, b"green")).sequence == 1


async def test_a_bus_needs_no_broker_to_open_and_close() -> None:
    async with Bus(settings_for("nats://127.0.0.1:1")) as bus:
        assert not bus.connected
        with pytest.raises(BusUnavailableError):
            await bus.publish(WANTED, b"green")
        with pytest.raises(BusUnavailableError):
            await bus.pull("TEAS", "kettle").fetch(1, 60)


async def test_a_broker_that_appears_late_is_found(broker: Broker) -> None:
    broker.kill()
    async with Bus(settings_for(f"nats://127.0.0.1:1,{broker.url}")) as bus:
        await asyncio.sleep(0.1)
        broker.start()
        await until(lambda: bus.connected)


async def test_a_message_that_is_too_large_is_refused_at_once(bus: Bus) -> None:
    with pytest.raises(BusUnavailableError, match="maximum payload"):
        await bus.publish(WANTED, b"x" * 2_000_000, 60)
    assert (await bus.publish(WANTED, b"green")).sequence == 1


async def test_what_a_user_may_not_do_is_never_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servicekit.bus, "API_TIMEOUT_S", 0.5)
    with running_broker(tmp_path, authorization=USERS) as broker:
        async with (
            bus_to(broker.url, nats_password="steam") as kettle,
            bus_to(broker.url, nats_user="keeper", nats_password="sugar") as keeper,
        ):
            await keeper.ensure_stream(TEAS)
            await kettle.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
            assert (await kettle.publish(WANTED, b"green")).sequence == 1
            assert await bodies(kettle.pull("TEAS", "kettle")) == [b"green"]
            with pytest.raises(BusUnavailableError, match=r'violation for publish to "teas\.other"'):
                await kettle.publish("teas.other", b"x", 0.3)
            with pytest.raises(BusUnavailableError):
                await kettle.pull("TEAS", "other").fetch(1, 0.1)
            with pytest.raises(BusUnavailableError):
                await kettle.stream_state("TEAS")
            assert kettle.connected


async def test_a_wrong_password_is_never_let_in_nor_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_broker(tmp_path, authorization=USERS) as broker:
        async with Bus(settings_for(broker.url, nats_password="wrong-secret")) as bus:
            await until(lambda: any("Authorization" in str(vars(record)) for record in caplog.records))
            assert not bus.connected
            said = ""
            async with asyncio.timeout(5):
                # After its word the broker hangs up: of one try or another that is what comes last.
                while "Authorization" not in said:
                    with pytest.raises(BusUnavailableError) as refused:
                        await bus.publish(WANTED, b"green")
                    said = str(refused.value)
                    await asyncio.sleep(0.01)
    assert all("wrong-secret" not in str(vars(record)) for record in caplog.records)


async def test_trouble_is_not_logged_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(link, "QUIET_S", 60.0)
    async with Bus(settings_for("nats://127.0.0.1:1")):
        await asyncio.sleep(0.2)  # many attempts
    assert len(caplog.records) == 1


async def test_the_same_trouble_is_logged_once_however_long_it_lasts(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles = 0
    monkeypatch.setattr(link, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(link, "QUIET_S", 0.0)
    note = link.Links._note

    async def counted(self: link.Links, exc: Exception) -> None:
        nonlocal troubles
        troubles += 1
        await note(self, exc)

    monkeypatch.setattr(link.Links, "_note", counted)
    async with Bus(settings_for("nats://127.0.0.1:1")):
        await until(lambda: troubles >= 5)
    assert len(caplog.records) == 1


async def test_no_password_is_sent_to_a_broker_without_tls(caplog: pytest.LogCaptureFixture) -> None:
    heard = b""

    async def eavesdrop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","headers":true,"auth_required":true}\r\n')
        heard += await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(eavesdrop, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Bus(settings_for(f"tls://127.0.0.1:{port}", nats_password="steam")):
        await until(lambda: any("offers no TLS" in str(vars(record)) for record in caplog.records))
    assert b"steam" not in heard
