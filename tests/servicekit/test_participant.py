"""A participant on a real broker and both databases: one effect an event, whatever repeats or breaks."""

import asyncio
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import Connection, create_engine, text

from servicekit import db, outcomes, pull
from servicekit.bus import Bus, BusUnavailableError, Message
from servicekit.cloudevents import encode
from servicekit.db import Database
from servicekit.participant import Participant, Refusal, Skipped, Succeeded
from tests.servicekit.kettle import (
    LETTERS,
    TEAS,
    TOLD,
    WANTED,
    KettleSettings,
    bus_to,
    settings_for,
    until,
)
from tests.storage import notes
from tests.support.broker import Broker, running_broker

NO_PULL = """users: [
  {user: kettle, password: "steam", permissions: {publish: {deny: ["$JS.API.CONSUMER.MSG.NEXT.>"]}}}
]"""


class Tea(BaseModel):
    """What the kettle reads of an event. It refuses coffee, and skips water."""

    name: str
    cups: int


def make(connection: Connection, teas: Sequence[Tea]) -> list[Succeeded | Skipped | Refusal]:
    answers: list[Succeeded | Skipped | Refusal] = []
    for tea in teas:
        if tea.name.startswith("coffee"):
            answers.append(Refusal(f"no {tea.name} here"))
        elif tea.name.startswith("water"):
            answers.append(Skipped("it is water"))
        else:
            notes.keep(connection, [(tea.name, tea.cups)])
            answers.append(Succeeded({"cups": tea.cups}))
    return answers


def wanted(key: str, *, name: str | None = None, cups: int = 1, retry: int = 0) -> bytes:
    return encode(
        id=key,
        source="/guest",
        type="tea.Wanted",
        subject=key,
        time=datetime.now(UTC),
        data={"name": name or key, "cups": cups},
        retry=retry,
    )


class Party:
    """A kettle at work, somebody who wants tea, and what both can see."""

    def __init__(self, bus: Bus, database: Database, database_url: str, settings: KettleSettings) -> None:
        self.bus = bus
        self.database = database
        self.database_url = database_url
        self.settings = settings
        self.registry = CollectorRegistry()
        self.handled: list[list[str]] = []
        self.woken = 0
        self.slow_s = 0.0
        self.task: asyncio.Task[None] | None = None

    def kettle(self) -> Participant[Tea]:
        return Participant(
            self.bus,
            self.database,
            self.settings,
            stream="TEAS",
            subject=WANTED,
            model=Tea,
            handle=self._handle,
            registry=self.registry,
            handled=self._wake,
            takes_time=lambda tea: not tea.name.startswith("water"),
        )

    def start(self) -> None:
        self.task = asyncio.create_task(self.kettle().run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
            self.task, self.registry = None, CollectorRegistry()

    async def declare(self) -> None:
        for stream in (TEAS, TOLD, LETTERS):
            await self.bus.ensure_stream(stream)

    async def want(self, *events: bytes) -> None:
        for event in events:
            await self.bus.publish(WANTED, event)

    async def made(self) -> list[str]:
        return sorted(await self.database.read(notes.names))

    async def messages(self, stream: str) -> list[tuple[str, dict[str, Any]]]:
        """Every message in a stream: its subject, and its data as told."""
        state = await self.bus.stream_state(stream)
        found = []
        for sequence in range(max(1, state.first_sequence), state.last_sequence + 1):
            with suppress(BusUnavailableError):  # a dead letter that was replaced
                found.append(await self._message(stream, sequence))
        return found

    async def _message(self, stream: str, sequence: int) -> tuple[str, dict[str, Any]]:
        got = await self.bus._api(f"STREAM.MSG.GET.{stream}", orjson.dumps({"seq": sequence}))
        return got["message"]["subject"], orjson.loads(b64decode(got["message"]["data"]))

    async def told(self) -> dict[str, dict[str, Any]]:
        """The last outcome told of each event."""
        return {event["subject"]: event["data"] for _, event in await self.messages("TOLD")}

    async def dead(self) -> dict[str, dict[str, Any]]:
        return {subject: event["data"] for subject, event in await self.messages("LETTERS")}

    async def all_told(self, *keys: str) -> dict[str, dict[str, Any]]:
        async with asyncio.timeout(15):
            while True:
                if set(keys) <= (told := await self.told()).keys():
                    return told
                await asyncio.sleep(0.02)

    async def settled(self) -> None:
        """Wait until every event is acknowledged or dropped."""
        async with asyncio.timeout(15):
            while True:
                state = await self.bus.stream_state("TEAS")
                durables = await self.bus.durables("TEAS")
                if durables and durables[0].ack_floor == state.last_sequence:
                    return
                await asyncio.sleep(0.02)

    def tries_of(self, name: str) -> int:
        return sum(batch.count(name) for batch in self.handled)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def _handle(self, connection: Connection, teas: Sequence[Tea]) -> list[Succeeded | Skipped | Refusal]:
        self.handled.append([tea.name for tea in teas])
        time.sleep(self.slow_s)
        return make(connection, teas)

    def _wake(self) -> None:
        self.woken += 1


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    """What was said of hearing: messages, with the broker's words."""
    return [
        (record.message, vars(record).get("error"))
        for record in caplog.records
        if record.name == "servicekit.hearing"
    ]


def create_tables(connection: Connection) -> None:
    notes.create(connection)
    outcomes.metadata.create_all(connection)


@contextmanager
def locked(database_url: str) -> Iterator[None]:
    """Somebody else holds what every transaction needs."""
    engine = create_engine(database_url)
    lock = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "LOCK TABLE outcomes, refusals"
    with engine.connect() as other:
        other.exec_driver_sql(lock)
        yield
    engine.dispose()


@asynccontextmanager
async def party_at(broker: Broker, database_url: str, **given: Any) -> AsyncIterator[Party]:
    settings = settings_for(broker.url, **given)
    async with bus_to(broker.url, **given) as bus, Database(database_url, timeout_s=0.5) as database:
        await database.write(create_tables)
        party = Party(bus, database, database_url, settings)
        await party.declare()
        try:
            yield party
        finally:
            await party.stop()


@pytest.fixture
async def party(broker: Broker, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Party]:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.02)
    async with party_at(broker, database_url) as party:
        yield party


@pytest.fixture
async def small_party(
    broker: Broker, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Party]:
    """On one engine: what it shows is not the database's doing."""
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.02)
    async with party_at(broker, sqlite_url) as party:
        yield party


async def test_an_event_has_its_effect_and_its_outcome_is_told(party: Party) -> None:
    party.start()
    await party.want(wanted("green", cups=3), wanted("water"))
    told = await party.all_told("green", "water")
    assert told["green"] == {"status": "succeeded", "result": {"cups": 3}, "reason": None, "attempts": 1}
    assert told["water"] == {"status": "skipped", "result": None, "reason": "it is water", "attempts": 1}
    await party.settled()
    assert await party.made() == ["green"]
    assert party.woken >= 1
    assert party.counted("events_handled_total", outcome="succeeded") == 1


async def test_an_outcome_is_a_cloud_event_on_its_own_subject(small_party: Party) -> None:
    small_party.start()
    await small_party.want(wanted("green"))
    await small_party.all_told("green")
    [(subject, event)] = await small_party.messages("TOLD")
    assert subject == "outcomes.kettle"
    assert (event["specversion"], event["id"]) == ("1.0", "kettle:green:succeeded")
    assert (event["source"], event["type"], event["subject"]) == (
        "/kettle",
        "duet.OutcomeReported",
        "green",
    )


async def test_its_durable_consumer_says_that_it_takes_part(small_party: Party) -> None:
    small_party.start()
    await small_party.want(wanted("green"))
    await small_party.settled()
    [durable] = await small_party.bus.durables("TEAS")
    assert (durable.name, durable.metadata["duet.outcome"]) == ("kettle", "true")


async def test_events_that_come_twice_and_out_of_order_have_one_effect_each(party: Party) -> None:
    names = ["a", "b", "c"]
    await party.want(*map(wanted, names))
    party.start()
    await party.settled()
    await party.want(*map(wanted, reversed(names)))
    await party.settled()
    assert await party.made() == names
    assert [party.tries_of(name) for name in names] == [1, 1, 1]
    told = [event["id"] for _, event in await party.messages("TOLD")]
    assert sorted(told) == sorted(f"kettle:{name}:succeeded" for name in names * 2)
    assert party.counted("events_handled_total", outcome="repeated") == 3


async def test_the_same_event_twice_in_one_batch_has_one_effect(party: Party) -> None:
    await party.want(wanted("a"), wanted("b"), wanted("a", cups=9), wanted("water"), wanted("water"))
    party.start()
    await party.settled()
    assert await party.made() == ["a", "b"]
    assert party.handled == [["a", "b", "water"]]
    assert (await party.told())["a"]["result"] == {"cups": 1}


async def test_what_is_heard_again_is_answered_with_what_is_stored(party: Party) -> None:
    await party.want(wanted("green", cups=2))
    party.start()
    await party.settled()
    await party.want(wanted("green", cups=5))
    await party.settled()
    assert [event["data"]["result"] for _, event in await party.messages("TOLD")] == [{"cups": 2}] * 2


async def test_a_refused_event_is_put_aside_after_five_tries_and_no_neighbour_notices(party: Party) -> None:
    names = [f"tea{number}" for number in range(10)]
    await party.want(*map(wanted, names[:5]), wanted("coffee"), *map(wanted, names[5:]))
    party.start()
    told = await party.all_told("coffee", *names)
    await party.settled()
    assert told["coffee"] == {
        "status": "failed",
        "result": None,
        "reason": "no coffee here",
        "attempts": 5,
    }
    assert party.tries_of("coffee") == 5
    assert [party.tries_of(name) for name in names] == [1] * 10
    assert await party.made() == sorted(names)
    [(subject, letter)] = (await party.dead()).items()
    assert subject == "dead_letters.kettle.coffee"
    assert (letter["participant"], letter["key"], letter["readable"]) == ("kettle", "coffee", True)
    assert (letter["reason"], letter["errors"], letter["sequence"]) == ("no coffee here", 5, 6)
    assert orjson.loads(letter["event"])["data"]["name"] == "coffee"
    assert party.counted("dead_letters_total") == 1


@pytest.mark.parametrize("cups", [2**63, 2**70])
async def test_an_event_that_the_database_does_not_take_is_put_aside_alone(party: Party, cups: int) -> None:
    huge = wanted("huge").replace(b'"cups":1', b'"cups":%d' % cups)  # orjson writes no such integer
    await party.want(wanted("a"), huge, wanted("b"))
    party.start()
    told = await party.all_told("a", "huge", "b")
    await party.settled()
    assert await party.made() == ["a", "b"]
    assert (told["huge"]["status"], told["huge"]["attempts"]) == ("failed", 5)
    assert (await party.dead()).keys() == {"dead_letters.kettle.huge"}


async def test_a_character_that_no_text_may_hold_costs_nobody_else_anything(party: Party) -> None:
    await party.want(wanted("a"), wanted("nul", name="coffee\x00"), wanted("b"))
    party.start()
    told = await party.all_told("a", "nul", "b")
    assert told["nul"]["reason"] == "no coffee\ufffd here"
    assert await party.made() == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"null", b"[]", b'{"subject": "a.b"}', b'{"subject": 7}', b"[" * 10_000],
)
async def test_what_names_no_subject_is_put_aside_by_its_place(small_party: Party, body: bytes) -> None:
    await small_party.want(wanted("a"), body, wanted("b"))
    small_party.start()
    await small_party.all_told("a", "b")
    await small_party.settled()
    assert (await small_party.told()).keys() == {"a", "b"}
    [(subject, letter)] = (await small_party.dead()).items()
    assert letter["readable"] is False
    assert (letter["sequence"], letter["errors"]) == (2, 5)
    assert subject == f"dead_letters.kettle.{letter['key']}"
    assert letter["key"].endswith("-2")


async def test_of_an_event_with_unreadable_data_the_failure_is_told(small_party: Party) -> None:
    event = wanted("secret").replace(b'"cups":1', b'"cups":"ada@example.org"')
    await small_party.want(event)
    small_party.start()
    told = await small_party.all_told("secret")
    assert (told["secret"]["status"], told["secret"]["attempts"]) == ("failed", 5)
    assert told["secret"]["reason"] == "the event cannot be read: #/data/cups: int_parsing"
    assert small_party.handled == []


async def test_an_event_with_more_than_is_read_is_read(small_party: Party) -> None:
    event = orjson.loads(wanted("green"))
    event |= {"traceparent": "00-x", "data": {**event["data"], "sugar": 2}}
    del event["retry"]
    await small_party.want(orjson.dumps(event))
    small_party.start()
    assert (await small_party.all_told("green"))["green"]["status"] == "succeeded"


async def test_a_refused_event_rests_until_a_retry_is_asked_for(party: Party) -> None:
    party.start()
    await party.want(wanted("coffee"))
    await party.settled()
    await party.want(wanted("coffee"))
    await party.settled()
    assert party.tries_of("coffee") == 5
    told = [event["data"]["attempts"] for _, event in await party.messages("TOLD")]
    assert told == [5, 5]
    await party.want(wanted("coffee", retry=1))
    await party.settled()
    assert party.tries_of("coffee") == 10
    await party.want(wanted("coffee", name="green", retry=1))
    await party.settled()
    assert await party.made() == []
    await party.want(wanted("coffee", name="green", retry=2))
    await party.settled()
    assert await party.made() == ["green"]
    assert (await party.told())["coffee"]["status"] == "succeeded"
    await party.want(wanted("coffee"))
    await party.settled()
    assert (await party.told())["coffee"]["status"] == "succeeded"


async def test_an_outcome_says_which_retry_it_answers(small_party: Party) -> None:
    small_party.start()
    events = [
        wanted("coffee"),
        wanted("coffee", retry=1),
        wanted("coffee"),
        wanted("green", retry=3),
        wanted("green", retry=4),
    ]
    for event in events:
        await small_party.want(event)
        await small_party.settled()
    assert [(event["id"], event["retry"]) for _, event in await small_party.messages("TOLD")] == [
        ("kettle:coffee:failed:0", 0),
        ("kettle:coffee:failed:1", 1),
        ("kettle:coffee:failed:1", 1),  # an event of before the retry is answered with what is stored
        ("kettle:green:succeeded", 3),
        ("kettle:green:succeeded", 4),
    ]


async def test_success_clears_the_count(party: Party) -> None:
    for _ in range(4):
        await party.database.write(lambda c: outcomes.count_refusal(c, "green", 0, "x"))
    party.start()
    await party.want(wanted("green"))
    await party.settled()
    assert await party.database.read(lambda c: outcomes.refused(c, ["green"])) == {}
    assert (await party.told())["green"]["status"] == "succeeded"


async def test_a_locked_database_puts_nothing_aside(party: Party) -> None:
    party.start()
    await party.want(wanted("first"))
    await party.settled()
    with locked(party.database_url):
        await party.want(*map(wanted, ["a", "b", "coffee"]))
        await until(lambda: party.counted("event_trouble_total", error="StorageUnavailableError") >= 6, 60)
    await party.all_told("a", "b", "coffee")
    await party.settled()
    assert await party.made() == ["a", "b", "first"]
    assert (await party.dead()).keys() == {"dead_letters.kettle.coffee"}
    assert (await party.told())["coffee"]["attempts"] == 5


async def test_a_broken_schema_puts_nothing_aside(party: Party) -> None:
    """A table that is missing is no event's fault."""
    await party.database.write(lambda c: c.execute(text("ALTER TABLE notes RENAME TO away")))
    party.start()
    await party.want(*map(wanted, ["a", "b"]))
    await until(lambda: min(map(party.tries_of, "ab")) >= 20, 30)
    await party.database.write(lambda c: c.execute(text("ALTER TABLE away RENAME TO notes")))
    await party.settled()
    assert await party.made() == ["a", "b"]
    assert await party.dead() == {}


async def test_a_broker_killed_under_load_loses_nothing(broker: Broker, sqlite_url: str) -> None:
    async with party_at(broker, sqlite_url, ack_wait_s=1) as party:
        names = [f"tea{number:03}" for number in range(300)]
        party.start()
        await asyncio.gather(*(party.want(wanted(name)) for name in names))
        for _ in range(2):
            await asyncio.sleep(0.05)
            broker.restart()
            await until(lambda: not party.bus.connected)
            await until(lambda: party.bus.connected)
            await party.declare()
        await party.settled()
        assert await party.made() == names
        assert await party.dead() == {}


async def test_after_a_wipe_what_is_emitted_again_is_answered_from_what_is_stored(
    small_party: Party, broker: Broker
) -> None:
    names = ["a", "b", "c"]
    small_party.start()
    await small_party.want(*map(wanted, names))
    await small_party.settled()
    broker.wipe()
    await until(lambda: not small_party.bus.connected)
    await until(lambda: small_party.bus.connected)
    await small_party.declare()
    await small_party.want(*map(wanted, [*names, "d"]))
    told = await small_party.all_told("a", "b", "c", "d")
    assert {data["status"] for data in told.values()} == {"succeeded"}
    await small_party.settled()
    assert [small_party.tries_of(name) for name in names] == [1, 1, 1]


async def test_outcomes_that_nobody_stores_keep_their_events_unacknowledged(small_party: Party) -> None:
    names = ["a", "b", "c"]
    await small_party.bus._api("STREAM.DELETE.TOLD")
    await small_party.want(*map(wanted, names))
    small_party.start()
    await until(lambda: small_party.counted("event_trouble_total", error="BusUnavailableError") >= 9)
    assert await small_party.made() == names
    [durable] = await small_party.bus.durables("TEAS")
    assert durable.ack_floor == 0
    await small_party.bus.ensure_stream(TOLD)
    told = await small_party.all_told(*names)
    await small_party.settled()
    assert [(told[name]["status"], told[name]["attempts"]) for name in names] == [("succeeded", 1)] * 3
    assert [small_party.tries_of(name) for name in names] == [1, 1, 1]


async def test_a_dead_letter_that_nobody_stores_keeps_the_outcome_back(small_party: Party) -> None:
    await small_party.bus._api("STREAM.DELETE.LETTERS")
    small_party.start()
    await small_party.want(wanted("coffee"))
    await until(lambda: small_party.counted("event_trouble_total", error="BusUnavailableError") >= 2)
    assert await small_party.told() == {}
    await small_party.bus.ensure_stream(LETTERS)
    assert (await small_party.all_told("coffee"))["coffee"]["attempts"] == 5
    await small_party.settled()
    assert small_party.tries_of("coffee") == 5


async def test_an_event_that_came_again_gets_a_transaction_of_its_own(small_party: Party) -> None:
    await small_party.bus.ensure_durable("TEAS", "kettle", WANTED, ack_wait_s=10)
    await small_party.want(*map(wanted, ["a", "b", "c"]))
    pull = small_party.bus.pull("TEAS", "kettle")
    for message in await pull.fetch(10, 1):  # by one who died at work
        await message.retry(0.001)
    await small_party.want(*map(wanted, ["d", "e"]))
    await asyncio.sleep(0.05)
    small_party.start()
    await small_party.settled()
    assert sorted(small_party.handled, key=len) == [["a"], ["b"], ["c"], ["d", "e"]]
    assert (await small_party.told())["a"]["attempts"] == 2


async def test_a_long_transaction_is_not_delivered_to_another_meanwhile(
    broker: Broker, sqlite_url: str
) -> None:
    async with party_at(broker, sqlite_url, ack_wait_s=1) as party:
        party.slow_s = 2.5
        await party.want(wanted("green"))
        party.start()
        await until(lambda: party.handled == [["green"]])
        assert await party.bus.pull("TEAS", "kettle").fetch(10, 2) == []
        await party.settled()
        assert (await party.told())["green"]["attempts"] == 1


async def test_two_workers_on_one_database_share_the_work(broker: Broker, postgres_url: str) -> None:
    names = [f"tea{number:03}" for number in range(200)]
    async with (
        party_at(broker, postgres_url, event_batch=7) as one,
        bus_to(broker.url) as bus,
        Database(postgres_url, timeout_s=5) as database,
    ):
        other = Party(bus, database, postgres_url, one.settings)
        one.start()
        await one.want(wanted(names[0]))
        await one.settled()  # there is a durable: two who make it at once may find that nobody listens yet
        other.start()
        try:
            await asyncio.gather(*(one.want(wanted(name), wanted(name)) for name in names))
            await one.settled()
        finally:
            await other.stop()
        assert await one.made() == names
        assert one.handled
        assert other.handled
        assert {data["status"] for data in (await one.told()).values()} == {"succeeded"}
        assert await one.dead() == {}


async def test_a_participant_waits_for_its_stream_and_says_so(
    broker: Broker, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with party_at(broker, sqlite_url) as party:
        await party.bus._api("STREAM.DELETE.TEAS")
        party.start()
        await until(lambda: ("nothing is heard", "stream not found") in warnings_in(caplog))
        assert party.counted("hearing") == 0
        await party.declare()
        await party.want(wanted("green"))
        await party.settled()
        assert await party.made() == ["green"]
        await until(lambda: party.counted("hearing") == 1)
        assert warnings_in(caplog) == [("nothing is heard", "stream not found"), ("heard again", None)]


async def test_a_participant_that_may_not_pull_says_so_once_in_the_brokers_words(
    tmp_path: Path, sqlite_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = 0
    fetch = pull.Pull.fetch

    async def counted(self: pull.Pull, max_items: int, wait_s: float) -> list[Message]:
        nonlocal fetches
        fetches += 1
        return await fetch(self, max_items, 0.1)

    monkeypatch.setattr(pull.Pull, "fetch", counted)
    monkeypatch.setattr(pull, "GRACE_S", 0.2)
    with running_broker(tmp_path, authorization=NO_PULL) as broker:
        async with party_at(broker, sqlite_url, nats_password="steam") as party:
            party.start()
            await until(lambda: fetches >= 5)
        [(_, words)] = [each for each in warnings_in(caplog) if each[0] == "nothing is heard"]
        assert "permissions violation for publish" in str(words)
        assert "consumer.msg.next.teas.kettle" in str(words)
