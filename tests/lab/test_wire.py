"""The weather, the exchanges and the proxy: decisions on their own, each kind on loopback connections."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.wire import connection, proxy
from lab.wire.proxy import Proxy
from lab.wire.talk import Draws, Talk, cut, slices
from lab.wire.weather import (
    CLEAR,
    FLAKY,
    KINDS,
    Fate,
    Kind,
    Weather,
    as_document,
    fate,
    flaky,
    in_words,
    read_duration,
    read_share,
    read_weather,
    slow,
)
from tests.support.broker import free_port

WAIT_S = 10.0
REPLY = bytes(range(256)) * 2
FAST = 0.1


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("300ms", 0.3), ("0.5s", 0.5), ("60s", 60)])
def test_a_time_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert read_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["2", "0s", "61s", "-1s", "2 s", "1e3s", "2m", "nans", "", "2s\n"])
def test_a_time_without_unit_or_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="at most 60s"):
        read_duration(text)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.5%", 0.005), ("100%", 1)])
def test_a_share_is_read_in_percent(text: str, share: float) -> None:
    assert read_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["10", "0%", "101%", "-1%", "0.1", "%", "10 %", "10%\n"])
def test_a_share_without_percent_or_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(LabError, match="no share"):
        read_share(text)


@pytest.mark.parametrize(
    "made",
    [
        lambda: slow(0),
        lambda: slow(61),
        lambda: slow(float("nan")),
        lambda: slow(1, "lose"),
        lambda: flaky(0),
        lambda: flaky(1.1),
        lambda: flaky(float("nan")),
        lambda: Weather(("hail",)),  # type: ignore[arg-type]  # what a request might hold
    ],
)
def test_weather_out_of_bounds_is_refused(made: Callable[[], Weather]) -> None:
    with pytest.raises(LabError):
        made()


@given(
    st.lists(st.sampled_from(KINDS), max_size=3),
    st.floats(min_value=0, max_value=1, exclude_min=True),
    st.floats(min_value=0, max_value=60, exclude_min=True),
    st.integers(),
    st.booleans(),
)
def test_weather_goes_through_json_unchanged(
    kinds: list[Kind], share: float, seconds: float, seed: int, passed: bool
) -> None:
    weather = Weather(tuple(kinds), share, seconds, seed, passed)
    assert read_weather(as_document(weather)) == weather


@pytest.mark.parametrize(
    "document", [None, [], "delay", {}, {**as_document(CLEAR), "more": 1}, {**as_document(CLEAR), "kinds": 1}]
)
def test_what_is_no_weather_is_refused(document: Any) -> None:
    with pytest.raises(LabError, match="no weather"):
        read_weather(document)


def test_weather_is_told_in_words() -> None:
    assert in_words(CLEAR) == "clear"
    assert in_words(slow(2)) == "delay 2 s on all exchanges"
    assert in_words(flaky(0.1)) == "reset or lose or cut on 10% of the exchanges"


def test_the_fate_of_an_exchange_hangs_on_seed_wire_and_number_alone() -> None:
    weather = flaky(0.3, seed=7)
    first = [fate(weather, "email rest", number) for number in range(200)]
    shuffled = random.sample(range(200), 200)
    assert {number: fate(weather, "email rest", number) for number in shuffled} == dict(enumerate(first))
    assert first != [fate(flaky(0.3, seed=8), "email rest", number) for number in range(200)]
    assert first != [fate(weather, "email broker", number) for number in range(200)]


def test_the_share_that_is_asked_for_is_hit_and_evenly_by_each_kind() -> None:
    kinds = Counter(fate(flaky(0.3), "w", number).kind for number in range(10_000))
    assert kinds[None] == pytest.approx(7000, abs=200)
    assert all(kinds[kind] == pytest.approx(1000, abs=150) for kind in FLAKY)
    assert all(fate(slow(1), "w", number).kind == "delay" for number in range(100))
    assert all(fate(CLEAR, "w", number) == Fate() for number in range(100))


def talk(weather: Weather = CLEAR) -> tuple[Draws, Talk]:
    draws = Draws("w")
    draws.change(weather)
    return draws, Talk(draws)


def test_an_exchange_begins_when_one_side_sends_after_the_other() -> None:
    draws, one = talk()
    for said in "?? !! ? ! ???".replace(" ", ""):
        one.asked() if said == "?" else one.answered()
    assert draws.exchanges == 3


def test_what_comes_before_the_connecting_side_speaks_is_in_no_exchange_and_passes() -> None:
    draws, one = talk(Weather(("lose",)))
    assert [one.answered(), one.answered()] == ["pass", "pass"]
    assert draws.exchanges == 0
    assert (one.asked(), one.answered()) == ("pass", "reset")
    assert (draws.exchanges, draws.hit["lose"]) == (1, 1)


@pytest.mark.parametrize(
    ("weather", "request_move", "reply_move"),
    [
        (CLEAR, "pass", "pass"),
        (slow(1), "pass", "delay"),
        (slow(1, "drip"), "pass", "drip"),
        (slow(1, "swallow"), "pass", "drop"),
        (Weather(("swallow",), seconds=1, passed=False), "drop", "drop"),
        (Weather(("cut",)), "pass", "cut"),
        (Weather(("lose",)), "pass", "reset"),
        (Weather(("reset",)), "reset", "reset"),
    ],
)
def test_each_kind_decides_about_request_and_reply(
    weather: Weather, request_move: str, reply_move: str
) -> None:
    _, one = talk(weather)
    assert (one.asked(), one.answered()) == (request_move, reply_move)


def test_the_exchange_under_way_is_drawn_again_when_the_weather_changes() -> None:
    draws, one = talk()
    assert one.asked() == "pass"
    draws.change(slow(1))
    assert one.answered() == "delay"
    draws.change(CLEAR)
    assert one.answered() == "pass"
    assert (draws.exchanges, draws.hit["delay"]) == (3, 1)


def test_a_connection_with_holes_in_its_stream_stays_swallowed_whatever_the_weather() -> None:
    draws, one = talk(slow(1, "swallow"))
    one.asked()
    draws.change(CLEAR)
    assert (one.answered(), one.asked(), one.answered()) == ("drop", "pass", "drop")


def test_a_change_begins_with_the_first_number_again() -> None:
    draws, _ = talk(flaky(0.5))
    drawn = [draws.draw() for _ in range(50)]
    draws.change(flaky(0.5))
    assert [draws.draw() for _ in range(50)] == drawn


@given(st.binary(max_size=500), st.integers(min_value=1, max_value=40))
def test_slices_lose_nothing_and_are_no_more_than_asked_for(piece: bytes, most: int) -> None:
    cut_up = slices(piece, most)
    assert b"".join(cut_up) == piece
    assert len(cut_up) <= most
    assert all(cut_up)


@given(st.binary(min_size=1, max_size=500), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_cut_reply_is_never_whole(reply: bytes, at: float) -> None:
    assert reply.startswith(cut(reply, at))
    assert len(cut(reply, at)) < len(reply)


@dataclass
class Upstream:
    """Answers each `?` by `REPLY`, each `!` by the number of its turn; `greeting` comes unasked."""

    port: int
    greeting: bytes = b""
    heard: list[bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reset: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.greeting)
        turn = 0
        try:
            while piece := await reader.read(65_536):
                self.heard.append(piece)
                for sign in piece:
                    turn += 1
                    writer.write(REPLY if sign == ord("?") else f"{turn};".encode())
            self.ended.set()
            writer.write(b"bye")
        except ConnectionResetError:
            self.reset.set()
        writer.close()


@dataclass
class Wire:
    """A proxy before an upstream, and what it said."""

    upstream: Upstream
    proxy: Proxy
    said: list[str]
    server: asyncio.Server | None = None

    async def begin_upstream(self) -> None:
        self.server = await asyncio.start_server(self.upstream.serve, "127.0.0.1", self.upstream.port)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
            try:
                yield reader, writer
            finally:
                writer.transport.abort()

    async def ask(self, sign: bytes = b"?") -> tuple[bytes, bool]:
        """What comes back on a connection of its own, and whether it ended by a reset."""
        async with self.connected() as (reader, writer):
            writer.write(sign)
            return await rest_of(reader, len(REPLY))


async def rest_of(reader: asyncio.StreamReader, most: int) -> tuple[bytes, bool]:
    got = b""
    try:
        while len(got) < most and (piece := await reader.read(most)):
            got += piece
    except ConnectionResetError:
        return got, True
    return got, False


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    upstream = Upstream(free_port())
    said: list[str] = []
    made = Wire(upstream, Proxy(free_port(), ("127.0.0.1", upstream.port), Draws("w"), said.append), said)
    await made.begin_upstream()
    made.proxy.start()
    async with asyncio.timeout(WAIT_S):
        await made.proxy.opened.wait()
    yield made
    await made.proxy.end()
    if made.server is not None:
        made.server.close()


async def test_in_clear_weather_everything_passes_both_ways_and_is_counted(wire: Wire) -> None:
    wire.upstream.greeting = b"hello"
    async with wire.connected() as (reader, writer):
        assert await reader.readexactly(5) == b"hello"
        for turn in range(1, 4):
            writer.write(b"!")
            assert await reader.readexactly(2) == f"{turn};".encode()
    told = wire.proxy.state()
    assert (told["exchanges"], sum(told["hit"].values()), told["refused"]) == (3, 0, 0)


async def test_much_passes_unchanged(wire: Wire) -> None:
    async with wire.connected() as (reader, writer):
        writer.write(b"?" * 10_000)
        assert await reader.readexactly(10_000 * len(REPLY)) == REPLY * 10_000


async def test_the_end_of_one_half_is_passed_on_and_the_other_half_still_speaks(wire: Wire) -> None:
    async with wire.connected() as (reader, writer):
        writer.write(b"!")
        writer.write_eof()
        assert await reader.read() == b"1;bye"
    assert wire.upstream.ended.is_set()
    await until(lambda: wire.proxy.state()["connections"] == 0)


async def test_a_client_s_reset_reaches_the_other_side(wire: Wire) -> None:
    async with wire.connected() as (reader, writer):
        writer.write(b"!")
        await reader.readexactly(2)
        connection.reset(writer)
        await wire.upstream.reset.wait()


async def test_delayed_replies_come_later_and_in_order(wire: Wire) -> None:
    wire.proxy.draws.change(slow(FAST))
    async with wire.connected() as (reader, writer):
        began = time.monotonic()
        writer.write(b"!")
        assert await reader.readexactly(2) == b"1;"
        assert time.monotonic() - began >= FAST
        writer.write(b"!")
        await until(lambda: len(wire.upstream.heard) == 2)
        wire.proxy.draws.change(CLEAR)  # what is on time now must not overtake what is late
        writer.write(b"!")
        assert await reader.readexactly(4) == b"2;3;"


async def test_more_than_may_wait_is_delayed_without_loss(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "WAITING_BYTES", 5_000)
    monkeypatch.setattr(connection, "PIECE_BYTES", 1_000)
    wire.proxy.draws.change(slow(0.01))
    async with wire.connected() as (reader, writer):
        writer.write(b"?" * 40)
        assert await reader.readexactly(40 * len(REPLY)) == REPLY * 40


async def test_a_dripping_reply_comes_whole_in_many_pieces(wire: Wire) -> None:
    wire.proxy.draws.change(slow(0.3, "drip"))
    async with wire.connected() as (reader, writer):
        writer.write(b"?")
        pieces = []
        while sum(map(len, pieces)) < len(REPLY):
            pieces.append(await reader.read(65_536))
    assert b"".join(pieces) == REPLY
    assert len(pieces) > 3


async def test_a_cut_reply_ends_at_another_byte_each_time_with_a_reset(wire: Wire) -> None:
    wire.proxy.draws.change(Weather(("cut",)))
    answers = [await wire.ask() for _ in range(5)]
    assert all(was_reset and REPLY.startswith(got) and got != REPLY for got, was_reset in answers)
    assert len({got for got, _ in answers}) == 5
    assert len(wire.upstream.heard) == 5
    assert wire.proxy.state()["hit"]["cut"] == 5


async def test_a_lost_reply_is_lost_after_the_request_was_answered(wire: Wire) -> None:
    wire.proxy.draws.change(Weather(("lose",)))
    assert await wire.ask() == (b"", True)
    assert wire.upstream.heard == [b"?"]


async def test_a_reset_comes_before_the_request_is_passed(wire: Wire) -> None:
    wire.proxy.draws.change(Weather(("reset",)))
    assert await wire.ask() == (b"", True)
    assert wire.upstream.heard == []


@pytest.mark.parametrize("passed", [True, False])
async def test_a_swallowed_exchange_says_nothing_and_ends_by_a_reset(wire: Wire, passed: bool) -> None:
    wire.proxy.draws.change(Weather(("swallow",), seconds=FAST, passed=passed))
    began = time.monotonic()
    assert await wire.ask() == (b"", True)
    assert time.monotonic() - began >= FAST
    assert wire.upstream.heard == ([b"?"] if passed else [])


async def test_only_the_drawn_exchanges_of_a_connection_are_hit(wire: Wire) -> None:
    weather = Weather(("lose",), share=0.3, seed=3)
    wire.proxy.draws.change(weather)
    expected = [fate(weather, "w", number).kind == "lose" for number in range(30)]
    assert [was_reset for _, was_reset in [await wire.ask() for _ in range(30)]] == expected
    assert wire.proxy.state()["hit"]["lose"] == sum(expected) > 0


async def test_the_weather_changes_on_connections_that_are_open(wire: Wire) -> None:
    async with wire.connected() as (reader, writer):
        writer.write(b"?")
        assert await reader.readexactly(len(REPLY)) == REPLY
        wire.proxy.draws.change(Weather(("lose",)))
        writer.write(b"?")
        assert await rest_of(reader, len(REPLY)) == (b"", True)


async def test_what_is_down_refuses_connections_and_is_back_when_it_listens_again(wire: Wire) -> None:
    assert wire.server is not None
    wire.server.close()
    wire.proxy.close_door()
    await until(lambda: not wire.proxy.state()["open"])
    with pytest.raises(ConnectionRefusedError):
        await wire.ask()
    await wire.begin_upstream()
    await until(lambda: bool(wire.proxy.state()["open"]))
    assert await wire.ask() == (REPLY, False)


async def test_who_is_not_told_of_an_end_resets_one_connection_and_refuses_the_next(wire: Wire) -> None:
    assert wire.server is not None
    wire.server.close()
    assert await wire.ask() == (b"", True)
    with pytest.raises(ConnectionRefusedError):
        await wire.ask()
    assert wire.proxy.state()["refused"] == 1


async def test_more_connections_than_the_bound_are_reset(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MOST_CONNECTIONS", 1)
    async with wire.connected() as (reader, writer):
        writer.write(b"!")
        await reader.readexactly(2)
        assert await wire.ask() == (b"", True)
        assert wire.proxy.state()["refused"] == 1
        writer.write(b"!")
        assert await reader.readexactly(2) == b"2;"


async def test_an_idle_connection_is_ended(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "IDLE_S", FAST)
    async with wire.connected() as (reader, _):
        assert await rest_of(reader, 1) == (b"", True)


async def test_who_has_gone_is_not_kept_for_the_length_of_a_delay(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", FAST)
    wire.proxy.draws.change(slow(60))
    async with wire.connected() as (reader, writer):
        writer.write(b"!")
        await until(lambda: wire.upstream.heard == [b"!"])
        writer.write_eof()
        assert await rest_of(reader, 1) == (b"", True)


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not what():  # noqa: ASYNC110  # a proxy's state has no event
            await asyncio.sleep(0.005)
