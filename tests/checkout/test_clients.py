"""The conductor's client: what it retries and how often, and every way in which a reply can go wrong."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
import respx
from prometheus_client import CollectorRegistry

from checkout.clients import FAILING_AFTER, FAILING_AFTER_S, RetryBudget, ServiceClient, Told, http_transport
from checkout.commands import ConfirmationReply
from checkout.metrics import CallMetrics
from checkout.orders import StepStatus
from checkout.replies import MisroutedError, NoSlotError, RefusedError, TroubleError
from tests.checkout.world import eventually, settings_for

URL = "http://email.test/emails"
GOOD = {"order_id": "o1", "delivery": "queued"}


@dataclass
class Clock:
    """Time that passes only in sleep, and a note of how long each sleep was."""

    now: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@dataclass
class Kit:
    """A client on a respx router, with a clock of the test's own."""

    router: respx.MockRouter
    clock: Clock
    registry: CollectorRegistry
    told: list[str] = field(default_factory=list)
    client: ServiceClient = field(init=False)

    def set_up(self, **given: Any) -> ServiceClient:
        self.client = ServiceClient(
            "email",
            "http://email.test/",
            "secret-token",
            httpx.MockTransport(self.router.async_handler),
            settings_for("sqlite:///unused.db", **{"call_backoff_s": 0.1, **given}),
            CallMetrics(self.registry),
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        return self.client

    async def tell(self, order_id: str = "o1") -> Told:
        return await self.client.tell("/emails", {"order_id": order_id}, ConfirmationReply, self.told.append)


@pytest.fixture
def kit() -> Iterator[Kit]:
    with respx.mock(assert_all_called=False, using=None) as router:
        kit = Kit(router, Clock(), CollectorRegistry())
        kit.set_up()
        yield kit


def replies(kit: Kit, *answers: httpx.Response | type[Exception]) -> respx.Route:
    return kit.router.post(URL).mock(side_effect=list(answers))


def good() -> httpx.Response:
    return httpx.Response(201, json=GOOD)


async def test_the_command_goes_out_once_as_json_with_the_services_token(kit: Kit) -> None:
    route = replies(kit, good())
    told = await kit.tell()
    assert (told.attempts, told.error) == (1, None)
    request = route.calls.last.request
    assert request.headers["authorization"] == "Bearer secret-token"
    assert request.headers["content-type"] == "application/json"
    assert orjson.loads(request.content) == {"order_id": "o1"}
    assert kit.told == []


async def test_a_success_makes_the_step_succeed_with_what_is_used_of_the_reply(kit: Kit) -> None:
    replies(kit, good())
    outcome = (await kit.tell()).outcome("o1", "email")
    assert (outcome.status, outcome.result, outcome.attempts) == (
        StepStatus.SUCCEEDED,
        {"delivery": "queued"},
        1,
    )


@pytest.mark.parametrize(
    "trouble",
    [
        *(httpx.Response(status) for status in (408, 425, 429, 500, 502, 503, 504, 204)),
        httpx.Response(200, text="hello"),
        httpx.Response(200, json={"order_id": "o1"}),
        httpx.Response(200, json={**GOOD, "order_id": "o2"}),
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.PoolTimeout,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.RemoteProtocolError,
        ConnectionResetError,
        BrokenPipeError,
    ],
    ids=str,
)
async def test_trouble_is_tried_again(kit: Kit, trouble: httpx.Response | type[Exception]) -> None:
    route = replies(kit, trouble, good())
    told = await kit.tell()
    assert (told.attempts, told.error, route.call_count) == (2, None, 2)
    assert len(kit.told) == 1


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405, 410, 415, 422])
async def test_a_misrouted_call_is_not_tried_again_within_the_pass(kit: Kit, status: int) -> None:
    route = replies(kit, httpx.Response(status, headers={"location": URL}), good())
    told = await kit.tell()
    assert isinstance(told.error, MisroutedError)
    assert (told.attempts, route.call_count, kit.clock.slept) == (1, 1, [])
    assert kit.registry.get_sample_value("misrouted_calls_total", {"service": "email"}) == 1
    assert told.outcome("o1", "email").status is StepStatus.PENDING


async def test_a_refusal_is_final(kit: Kit) -> None:
    body = orjson.dumps({"type": "http://e.test/problems/email/validation-error"})
    no = httpx.Response(422, content=body, headers={"content-type": "application/problem+json"})
    route = replies(kit, no, good())
    told = await kit.tell()
    assert isinstance(told.error, RefusedError)
    assert route.call_count == 1
    outcome = told.outcome("o1", "email")
    assert (outcome.status, outcome.reason) == (StepStatus.FAILED, "validation-error")


async def test_attempts_are_bounded(kit: Kit) -> None:
    route = kit.router.post(URL).respond(503)
    told = await kit.tell()
    assert isinstance(told.error, TroubleError)
    assert (told.attempts, route.call_count) == (4, 4)
    assert kit.told == ["status-503"]
    outcome = told.outcome("o1", "email")
    assert (outcome.status, outcome.last_error, outcome.attempts) == (StepStatus.PENDING, "status-503", 4)


async def test_the_last_error_is_that_of_the_last_try(kit: Kit) -> None:
    replies(kit, httpx.ConnectError, httpx.Response(503), httpx.Response(404))
    told = await kit.tell()
    assert told.error is not None
    assert (told.attempts, told.error.slug) == (3, "misrouted-404")
    assert kit.told == ["unreachable"]


async def test_pauses_have_full_jitter_under_a_ceiling_that_doubles(kit: Kit) -> None:
    kit.router.post(URL).respond(503)
    pauses: list[list[float]] = [[], [], []]
    for _ in range(60):
        kit.clock.slept.clear()
        kit.clock.now += 100  # the budget fills up again
        await kit.tell()
        for place, pause in zip(pauses, kit.clock.slept, strict=True):
            place.append(pause)
    for place, ceiling_s in zip(pauses, (0.2, 0.4, 0.8), strict=True):
        assert max(place) <= ceiling_s
        assert max(place) > ceiling_s * 0.7
        assert min(place) < ceiling_s * 0.3


async def test_a_service_that_says_when_is_asked_again_then(kit: Kit) -> None:
    replies(kit, httpx.Response(503, headers={"retry-after": "3"}), good())
    told = await kit.tell()
    assert (told.attempts, kit.clock.slept) == (2, [3.0])


async def test_a_retry_after_beyond_the_deadline_is_left_to_a_later_pass(kit: Kit) -> None:
    route = replies(kit, httpx.Response(429, headers={"retry-after": "8"}), good())
    told = await kit.tell()
    assert (told.attempts, route.call_count, kit.clock.slept) == (1, 1, [])
    assert isinstance(told.error, TroubleError)


async def test_the_time_for_all_tries_together_is_bounded(kit: Kit) -> None:
    route = kit.router.post(URL).respond(503, headers={"retry-after": "3"})
    started = kit.clock.now
    told = await kit.tell()
    assert (told.attempts, route.call_count) == (3, 3)
    assert kit.clock.now - started <= 8


async def test_a_cancelled_call_is_not_tried_again(kit: Kit) -> None:
    calls = 0

    async def hang(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    kit.router.post(URL).mock(side_effect=hang)
    telling = asyncio.create_task(kit.tell())
    await eventually(lambda: calls)
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert (calls, kit.clock.slept) == (1, [])
    labels = {"service": "email", "outcome": "cancelled"}
    assert kit.registry.get_sample_value("step_attempts_total", labels) == 1
    assert kit.registry.get_sample_value("calls_in_flight", {"service": "email"}) == 0


@pytest.mark.parametrize("tries", [0, 1])
async def test_a_fault_of_our_own_is_pending_with_a_slug_of_its_own(kit: Kit, tries: int) -> None:
    replies(kit, *[httpx.ReadError] * tries, ValueError)
    told = await kit.tell()
    assert told.error is not None
    assert told.error.slug == "conductor-error"
    assert told.outcome("o1", "email").status is StepStatus.PENDING


async def test_only_so_many_calls_are_in_flight() -> None:
    with respx.mock(using=None) as router:
        kit = Kit(router, Clock(), CollectorRegistry())
        client = kit.set_up(max_in_flight=3, slot_timeout_s=0.02)
        gate = asyncio.Event()
        running = most = 0

        async def slow(request: httpx.Request) -> httpx.Response:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1
            return httpx.Response(201, json=GOOD)

        router.post(URL).mock(side_effect=slow)
        calls = [asyncio.create_task(kit.tell()) for _ in range(3)]
        await eventually(lambda: running == 3)
        late = await kit.tell()
        assert isinstance(late.error, NoSlotError)
        assert late.outcome("o1", "email").last_error == "too-many-in-flight"
        waiting = asyncio.create_task(kit.tell())
        await asyncio.sleep(0)
        gate.set()
        assert [(await call).error for call in [*calls, waiting]] == [None] * 4
        assert most == 3
        assert client.failing is False


async def test_a_cancelled_call_gives_its_place_back() -> None:
    with respx.mock(using=None) as router:
        kit = Kit(router, Clock(), CollectorRegistry())
        kit.set_up(max_in_flight=2, slot_timeout_s=0.02)
        gate = asyncio.Event()

        async def slow(request: httpx.Request) -> httpx.Response:
            await gate.wait()
            return httpx.Response(201, json=GOOD)

        router.post(URL).mock(side_effect=slow)
        for _ in range(10):
            calls = [asyncio.create_task(kit.tell()) for _ in range(4)]
            await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        gate.set()
        told = await asyncio.gather(kit.tell(), kit.tell())
        assert [each.error for each in told] == [None, None]


async def test_a_storm_of_failing_calls_makes_hardly_more_calls_than_orders(kit: Kit) -> None:
    route = kit.router.post(URL).respond(503)
    orders = 1_000
    for _ in range(orders):
        await kit.tell()
        kit.clock.now -= sum(kit.clock.slept)  # all at the same moment
        kit.clock.slept.clear()
    assert orders <= route.call_count <= orders * 1.2 + 10


async def test_recovery_is_told_once_when_a_service_answers_again_after_a_while(kit: Kit) -> None:
    recovered: list[bool] = []
    kit.client.on_recovery = lambda: recovered.append(True)
    replies(kit, good(), *[httpx.Response(404)] * FAILING_AFTER, good(), good())
    await kit.tell()
    for _ in range(FAILING_AFTER):
        assert not kit.client.failing
        kit.clock.now += FAILING_AFTER_S
        await kit.tell()
    assert kit.client.failing
    for expected in ([True], [True]):
        await kit.tell()
        assert recovered == expected


@pytest.mark.parametrize(("failures", "seconds"), [(FAILING_AFTER - 1, 60.0), (FAILING_AFTER * 2, 0.1)])
async def test_a_few_failures_or_many_within_a_moment_are_no_failing_service(
    kit: Kit, failures: int, seconds: float
) -> None:
    recovered: list[bool] = []
    kit.client.on_recovery = lambda: recovered.append(True)
    replies(kit, good(), *[httpx.Response(404)] * failures, good())
    for _ in range(failures + 2):
        await kit.tell()
        kit.clock.now += seconds / (failures + 2)
    assert recovered == []


def test_the_budget_lets_a_share_of_retries_through() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, 0.0, clock)
    while budget.spend():
        pass
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) in (9, 10)  # it holds ten at most


def test_the_budget_fills_by_itself_at_its_floor() -> None:
    clock = Clock()
    budget = RetryBudget(0.0, 20.0, clock)
    while budget.spend():
        pass
    clock.now += 0.5
    assert sum(budget.spend() for _ in range(100)) == 10
    clock.now += 3_600
    assert sum(budget.spend() for _ in range(100)) == 20


# From here on: real sockets on loopback, and servers that behave as badly as they can.

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
BODY = orjson.dumps(GOOD)
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[str]:
    """The URL of a server that treats each request so, and closes the connection after it."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await behave(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def write(data: bytes) -> Behaviour:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def cut_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD[:30])


def drip(first: bytes, piece: bytes) -> Behaviour:
    """Every piece comes well within any timeout of a single read; the whole never does."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        for _ in range(1_000):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    return behave


async def tell_for_real(url: str, **given: Any) -> Told:
    settings = settings_for("sqlite:///unused.db", call_max_attempts=1, call_timeout_s=0.15, **given)
    async with http_transport(8) as transport:
        client = ServiceClient("email", url, "token", transport, settings, CallMetrics(CollectorRegistry()))
        return await client.tell("/emails", {"order_id": "o1"}, ConfirmationReply, lambda slug: None)


async def test_a_whole_reply_over_a_socket_is_a_success() -> None:
    async with serving(write(WHOLE)) as url:
        told = await tell_for_real(url)
    assert (told.attempts, told.error) == (1, None)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behave", "slug"),
    [
        (say_nothing, "timeout"),
        (drip(HEAD + b"Content-Length: 5000\r\n\r\n", b" "), "timeout"),
        (drip(CHUNKED, b"1\r\n \r\n"), "timeout"),
        (drip(HEAD, b"X-More: y\r\n"), "timeout"),
        (write(WHOLE[:-5]), "reply-truncated"),
        (write(CHUNKED + b'5\r\n{"a"'), "reply-truncated"),
        (write(CHUNKED + b'5\r\n{"a":\r\n'), "reply-truncated"),
        (write(CHUNKED + b"zz\r\nnonsense\r\n"), "reply-not-http"),
        (write(b""), "connection-lost"),
        (cut_headers, "connection-lost"),
        (reset, "connection-lost"),
        (write(b"SSH-2.0-OpenSSH_9.2\r\n" * 3), "reply-not-http"),
        (write(b"\x00\x01\x02\xff" * 100), "reply-not-http"),
        (write(b"HTTP/1.1 banana\r\n\r\n"), "reply-not-http"),
        (write(HEAD + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n"), "reply-not-http"),
        (write(HEAD + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000), "reply-too-large"),
        (drip(CHUNKED, b"4000\r\n" + b"x" * 0x4000 + b"\r\n"), "reply-too-large"),
        (
            write(
                HEAD
                + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(BODY))
                + gzip.compress(BODY)
            ),
            "reply-compressed",
        ),
        (write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "reply-wrong-content-type"),
        (write(HEAD + b"Content-Length: 2\r\n\r\n{}"), "reply-wrong-shape"),
        (write(HEAD + b"Content-Length: 2\r\n\r\n{]"), "reply-malformed"),
        (
            write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
            "misrouted-302",
        ),
    ],
)
async def test_a_reply_that_goes_wrong_is_named_and_never_a_success(behave: Behaviour, slug: str) -> None:
    async with serving(behave) as url, asyncio.timeout(5):
        told = await tell_for_real(url)
    assert told.reply is None
    assert told.error is not None
    assert told.error.slug == slug
    assert told.outcome("o1", "email").status is StepStatus.PENDING


async def test_nobody_listening_is_unreachable() -> None:
    async with serving(say_nothing) as url:
        pass
    told = await tell_for_real(url)
    assert told.error is not None
    assert told.error.slug == "unreachable"


async def test_cancelled_calls_leak_no_connection() -> None:
    """A pool that leaks a place for each cancelled call has none left after eight, for good."""
    open_ = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_
        open_ += 1
        try:
            await asyncio.sleep(0.02)
            writer.write(WHOLE)
            await writer.drain()
        finally:
            open_ -= 1

    settings = settings_for("sqlite:///unused.db", call_max_attempts=1, max_in_flight=24)
    metrics = CallMetrics(CollectorRegistry())
    async with serving(slow) as url, http_transport(8) as transport, asyncio.timeout(20):
        client = ServiceClient("email", url, "token", transport, settings, metrics)

        def tell() -> Awaitable[Told]:
            return client.tell("/emails", {"order_id": "o1"}, ConfirmationReply, lambda slug: None)

        for n in range(10):
            calls = [asyncio.ensure_future(tell()) for _ in range(24)]
            await asyncio.sleep(0.003 * n)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        told = await asyncio.gather(*(tell() for _ in range(8)))
        assert [each.error for each in told] == [None] * 8
        await eventually(lambda: open_ == 0)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with serving(write(WHOLE)) as url:
        assert (await tell_for_real(url)).error is None
