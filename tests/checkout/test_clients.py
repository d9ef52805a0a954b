"""The conductor's client, each command a request: what it retries and how often, and every bad reply."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
import pytest
import respx
from prometheus_client import CollectorRegistry

from checkout.clients import FAILING_AFTER, FAILING_AFTER_S, RetryBudget, ServiceClient, Told
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
            settings_for("sqlite:///unused.db", **{"call_backoff_s": 0.1, "batching": "off", **given}),
            CallMetrics(self.registry),
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        return self.client

    async def tell(self, order_id: str = "o1") -> Told:
        async def on_trouble(slug: str) -> None:
            self.told.append(slug)

        return await self.client.tell("/emails", {"order_id": order_id}, ConfirmationReply, on_trouble)


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
    kit.registry = CollectorRegistry()
    kit.set_up(retry_budget_ratio=0.2, retry_budget_floor_per_s=0)
    route = kit.router.post(URL).respond(503)
    orders = 1_000
    for _ in range(orders):
        await kit.tell()
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


async def test_a_service_where_nobody_listens_is_failing_at_once_however_short_that_is(kit: Kit) -> None:
    """Else short outages would add up: whoever met several of them would wait the longest."""
    recovered: list[bool] = []
    kit.client.on_recovery = lambda: recovered.append(True)
    for outages in (1, 2):
        replies(kit, httpx.ConnectError("refused"), good())
        await kit.tell()
        assert (len(recovered), kit.client.failing) == (outages, False)


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
