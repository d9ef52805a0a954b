"""`duet order`: a retry never makes a second order, and an accepted id is on disk before anybody sees it."""

import asyncio
import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab import order
from lab.client import Call, NoAnswerError, Patience, RefusedError, bearer, each, expect, pages, send
from lab.errors import LabError
from lab.placing import MOST_IN_FLIGHT, Plan, place_orders
from lab.samples import mixed_order, sample_order
from lab.synced import SyncedLines, read_lines
from tests.lab.fake_system import (
    FakeSystem,
    FakeTime,
    lost_reply,
    make_fake,
    not_json,
    overloaded,
    refused_connection,
    run_command,
    timed_out,
)

URL = "http://127.0.0.1:8000"


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    return make_fake(tmp_path)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


class Witness:
    """Notes what it is shown, and that the file held each id by then."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.accepted_ids: list[str] = []
        self.statuses: list[str] = []
        self.errors: list[str] = []

    def accepted(self, order: Mapping[str, Any]) -> None:
        assert order["order_id"] in read_lines(self.file)
        self.accepted_ids.append(order["order_id"])

    def changed(self, order: Mapping[str, Any]) -> None:
        self.statuses.append(order["status"])

    def not_accepted(self, error: LabError) -> None:
        self.errors.append(str(error))


def a_plan(time: FakeTime, **changes: Any) -> Plan:
    def body(number: int) -> bytes:
        return json.dumps(mixed_order(number)).encode()

    return Plan(**{"url": URL, "body": body, "patience": time.patience(120), **changes})


async def place(fake: FakeSystem, plan: Plan) -> tuple[Any, Witness]:
    file = fake.system.data / "accepted.log"
    witness = Witness(file)
    async with fake.client as client, SyncedLines(file) as accepted:
        outcome = await place_orders(client, plan, accepted, witness)
    return outcome, witness


@pytest.mark.parametrize("trouble", [refused_connection, lost_reply, timed_out, overloaded, not_json])
async def test_an_order_that_gets_no_answer_is_sent_again_with_its_key_and_is_one_order(
    fake: FakeSystem, time: FakeTime, trouble: Any
) -> None:
    fake.trouble = [trouble, trouble]
    outcome, witness = await place(fake, a_plan(time))
    posts = fake.posts("/checkouts")
    assert len(posts) == 3
    assert len({post.headers["Idempotency-Key"] for post in posts}) == 1
    assert len({post.content for post in posts}) == 1
    assert len(fake.orders) == 1
    assert outcome.all_accepted
    assert outcome.retries == 2
    assert witness.accepted_ids == read_lines(witness.file) == list(fake.orders)


async def test_an_order_whose_reply_was_lost_is_reported_as_replayed(
    fake: FakeSystem, time: FakeTime
) -> None:
    fake.trouble = [lost_reply]
    outcome, _ = await place(fake, a_plan(time))
    assert (outcome.accepted, outcome.replayed) == (1, 1)


async def test_the_pause_is_what_the_service_asks_for_and_some_jitter(
    fake: FakeSystem, time: FakeTime
) -> None:
    fake.trouble = [overloaded]
    await place(fake, a_plan(time))
    assert 7 <= time.slept[0] <= 12


async def test_patience_ends_and_the_order_is_unanswered(fake: FakeSystem, time: FakeTime) -> None:
    fake.trouble = [overloaded] * 100
    outcome, witness = await place(fake, a_plan(time))
    assert time.now <= 120
    assert not outcome.all_accepted
    assert outcome.unanswered == 1
    assert "Too much work" in witness.errors[0]
    assert read_lines(witness.file) == []


async def test_a_refusal_is_not_sent_again_and_the_other_orders_go_on(
    fake: FakeSystem, time: FakeTime
) -> None:
    bodies = [b"{}", json.dumps(sample_order()).encode()]
    outcome, _ = await place(fake, a_plan(time, body=lambda number: bodies[number], count=2))
    assert (outcome.accepted, outcome.refused) == (1, 1)
    assert len(fake.posts("/checkouts")) == 2
    assert "#/customer" in outcome.errors[0]


async def test_each_of_many_orders_has_a_key_of_its_own(fake: FakeSystem, time: FakeTime) -> None:
    outcome, _ = await place(fake, a_plan(time, count=40))
    assert outcome.finished["completed"] == 40
    assert len(fake.keys) == 40
    assert sorted(read_lines(fake.system.data / "accepted.log")) == sorted(fake.orders)


async def test_orders_are_followed_until_they_are_final(fake: FakeSystem, time: FakeTime) -> None:
    fake.looks = 3
    outcome, witness = await place(fake, a_plan(time, count=3))
    assert outcome.finished["completed"] == 3
    assert not outcome.unfinished
    assert witness.statuses.count("completed") == 3
    assert {shown["status"] for shown in outcome.orders.values()} == {"completed"}


async def test_following_ends_with_the_wait_and_says_what_is_unfinished(
    fake: FakeSystem, time: FakeTime
) -> None:
    fake.looks = 10_000
    outcome, _ = await place(fake, a_plan(time, follow_s=30.0))
    assert outcome.all_accepted
    assert len(outcome.unfinished) == 1
    assert 30 <= time.now <= 32


async def test_following_outlives_a_checkout_that_is_down_for_a_while(
    fake: FakeSystem, time: FakeTime
) -> None:
    fake.looks = 1

    def fail_looks(request: httpx.Request) -> None:
        if request.method == "GET" and time.now < 12:
            raise httpx.ConnectError("refused", request=request)

    fake.before = fail_looks
    outcome, _ = await place(fake, a_plan(time))
    assert outcome.finished["completed"] == 1


async def test_with_a_rate_orders_leave_at_their_intended_times(fake: FakeSystem, time: FakeTime) -> None:
    left: list[float] = []
    fake.before = lambda request: left.append(time.now)
    outcome, _ = await place(fake, a_plan(time, count=5, rate=4.0))
    assert left == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert outcome.worst_lag_s == pytest.approx(0)


async def test_with_a_rate_a_stall_holds_up_nobody_until_two_hundred_are_in_flight(
    fake: FakeSystem, time: FakeTime
) -> None:
    go_on = asyncio.Event()
    in_flight = most = 0

    async def stalled(request: httpx.Request) -> httpx.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        if most == MOST_IN_FLIGHT:
            asyncio.get_running_loop().call_later(0.01, go_on.set)
        await go_on.wait()
        in_flight -= 1
        return fake.handle(request)

    plan = a_plan(time, count=MOST_IN_FLIGHT + 50, rate=1000.0)
    file = fake.system.data / "accepted.log"
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(stalled)) as client,
        SyncedLines(file) as lines,
    ):
        outcome = await place_orders(client, plan, lines, Witness(file))
    assert most == MOST_IN_FLIGHT
    assert outcome.all_accepted


async def test_an_order_whose_id_cannot_be_written_ends_the_command(
    fake: FakeSystem, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    file = fake.system.data / "accepted.log"
    async with fake.client as client, SyncedLines(file) as accepted:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(LabError, match="No space left"):
            await place_orders(client, a_plan(time, count=3, rate=10.0), accepted, Witness(file))
    assert read_lines(file) == []


async def test_lines_added_together_are_all_there_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "lines"
    async with SyncedLines(file) as one, SyncedLines(file) as other:
        await asyncio.gather(*(lines.add(f"line-{n}") for n, lines in enumerate([one, other] * 50)))
        assert sorted(read_lines(file)) == sorted(f"line-{n}" for n in range(100))
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_half_line_is_ignored_by_readers_and_removed_by_the_next_writer(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("whole\nha")
    assert read_lines(file) == ["whole"]
    async with SyncedLines(file) as lines:
        await lines.add("next")
    assert file.read_text() == "whole\nnext\n"


async def test_a_cancelled_caller_leaves_the_lines_of_the_others_alone(tmp_path: Path) -> None:
    async with SyncedLines(tmp_path / "lines") as lines:
        first, second = asyncio.create_task(lines.add("first")), asyncio.create_task(lines.add("second"))
        await asyncio.sleep(0)
        first.cancel()
        await second
    assert "second" in read_lines(tmp_path / "lines")


async def test_a_page_that_never_ends_is_an_error(time: FakeTime) -> None:
    def again(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"effects": [], "next": "same"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(again)) as client:
        with pytest.raises(LabError, match="same page"):
            async for _ in pages(client, Call("GET", URL), "effects", time.patience(5)):
                pass


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_status_that_may_pass_is_tried_again(time: FakeTime, status: int) -> None:
    answers = iter([httpx.Response(status), httpx.Response(200, json={"ok": 1})])
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: next(answers))) as client:
        answer = await send(client, Call("GET", URL, bearer("token")), time.patience(60))
    assert (answer.body, answer.tries) == ({"ok": 1}, 2)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 422])
async def test_any_other_refusal_is_final(time: FakeTime, status: int) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(status))) as client:
        answer = await send(client, Call("GET", URL), time.patience(60))
    with pytest.raises(RefusedError, match=str(status)):
        expect(answer)


async def test_a_reply_that_hangs_is_given_up_within_its_time(time: FakeTime) -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    patience = Patience(0.3, try_s=0.01, clock=time.clock, sleep=time.sleep)
    async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as client:
        with pytest.raises(NoAnswerError, match="no answer within"):
            await send(client, Call("GET", URL), patience)


async def test_cancelling_a_call_is_no_reason_to_try_again(time: FakeTime) -> None:
    started = asyncio.Event()
    tries = 0

    async def hang(_: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as client:
        calling = asyncio.create_task(send(client, Call("GET", URL), time.patience(60)))
        await started.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert tries == 1


async def test_work_for_many_items_is_bounded_and_ends_at_the_first_error() -> None:
    at_once = most = 0

    async def work(item: int) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        if item == 50:
            raise ValueError(item)

    with pytest.raises(ValueError, match="50"):
        await each(range(10_000), work, 4)
    assert most == 4


def test_one_order_prints_its_steps_and_what_to_do_next(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order")
    assert result.exit_code == 0, result.output
    assert "accepted order-0001" in result.output
    assert "order-0001 rewards succeeded" in result.output
    assert "duet audit" in result.output


def test_an_order_that_is_still_waiting_says_for_what(fake: FakeSystem) -> None:
    fake.looks = 10_000
    fake.pending = {
        "warehouse": {"status": "pending", "attempts": 2, "last_error": "timeout", "since": "now"}
    }
    result = run_command(order, fake, "order", "--wait", "0")
    assert result.exit_code == 0, result.output
    assert "1 in progress" in result.output
    assert "order-0001 goes on, waiting for warehouse (timeout since now)" in result.output


def test_hostile_text_of_a_service_reaches_the_terminal_without_its_escapes(fake: FakeSystem) -> None:
    fake.looks = 10_000
    fake.pending = {"email": {"status": "failed", "attempts": 1, "reason": "\x1b[2J[red]gone\nfake line"}}
    result = run_command(order, fake, "order", "--wait", "0")
    assert "\x1b" not in result.output
    assert "[red]gone fake line" in result.output


def test_the_last_line_is_the_audit_that_checks_these_orders(fake: FakeSystem, tmp_path: Path) -> None:
    file = tmp_path / "my ids"
    result = run_command(order, fake, "order", "--accepted", str(file))
    assert result.output.splitlines()[-1] == (
        f"check with: duet audit --port-base 8000 --wait 60 --accepted '{file}'"
    )
    assert read_lines(file) == ["order-0001"]


def test_without_membership_the_rewards_step_is_skipped(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--no-member")
    assert "order-0001 rewards skipped the customer has not joined rewards" in result.output


def test_json_is_one_document_with_counts_and_representations(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--count", "12", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["requested"], told["accepted"], told["completed"]) == (12, 12, 12)
    assert [shown["status"] for shown in told["orders"]] == ["completed"] * 12


def test_a_bad_file_is_refused_readably_with_a_pointer_for_each_field(
    fake: FakeSystem, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"lines": []}')
    result = run_command(order, fake, "order", "--file", str(bad))
    assert result.exit_code == 1
    assert "Not valid (HTTP 422)" in result.stderr
    assert "#/customer: Field required" in result.stderr


def test_a_file_is_sent_as_it_is_from_standard_input_too(fake: FakeSystem) -> None:
    body = json.dumps(sample_order(rewards_member=False), indent=3)
    result = run_command(order, fake, "order", "--file", "-", input=body)
    assert result.exit_code == 0, result.output
    assert fake.posts("/checkouts")[0].content == body.encode()


@pytest.mark.parametrize(
    "arguments", [["--file", "no-such-file"], ["--file", "-", "--member"], ["--count", "0"], ["--rate", "0"]]
)
def test_wrong_usage_sends_nothing_and_exits_with_two(fake: FakeSystem, arguments: list[str]) -> None:
    result = run_command(order, fake, "order", *arguments)
    assert result.exit_code == 2
    assert not fake.requests


def test_the_style_is_named_in_the_request_only_if_it_was_asked_for(fake: FakeSystem) -> None:
    run_command(order, fake, "order")
    run_command(order, fake, "order", "--style", "orchestration")
    assert [dict(post.url.params) for post in fake.posts("/checkouts")] == [{}, {"style": "orchestration"}]


def test_both_styles_take_turns(fake: FakeSystem) -> None:
    run_command(order, fake, "order", "--style", "both", "--count", "12", "--rate", "1000")
    asked = [post.url.params["style"] for post in fake.posts("/checkouts")]
    assert asked == ["orchestration", "choreography"] * 6


def test_without_a_count_both_styles_get_the_same_order(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--style", "both")
    assert result.exit_code == 0, result.output
    first, second = fake.posts("/checkouts")
    assert (first.url.params["style"], second.url.params["style"]) == ("orchestration", "choreography")
    assert first.content == second.content
    assert "order-0001, orchestration, " in result.output
    assert "order-0002, choreography, " in result.output


def test_json_counts_each_style_for_itself(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--style", "both", "--count", "13", "--json")
    told = json.loads(result.stdout)
    assert told["accepted"] == 13
    assert {style: counts["accepted"] for style, counts in told["styles"].items()} == {
        "orchestration": 7,
        "choreography": 6,
    }
    for counts in told["styles"].values():
        assert counts["completed"] == counts["accepted"]
        assert (counts["needs_attention"], counts["in_progress"]) == (0, 0)
        assert set(counts["answer_ms"]) == {"p50", "p99"}
        assert counts["completion_ms"] == {"p50": 2000, "p99": 2000}  # by the times that checkout tells


def test_an_order_that_is_not_completed_has_no_completion_time(fake: FakeSystem) -> None:
    fake.looks = 10_000
    result = run_command(order, fake, "order", "--style", "choreography", "--wait", "0", "--json")
    assert json.loads(result.stdout)["styles"]["choreography"]["completion_ms"] == {}


def test_the_summary_shows_the_styles_side_by_side_within_80_columns(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--style", "both", "--count", "4")
    figures = [line.split() for line in result.output.splitlines()]
    assert ["orchestration", "choreography"] in figures
    assert ["accepted", "2", "2"] in figures
    assert ["completed,", "ms", "(p50", "/", "p99)", "2000", "/", "2000", "2000", "/", "2000"] in figures
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_an_order_that_nobody_takes_part_in_says_so(fake: FakeSystem) -> None:
    fake.looks = 10_000
    fake.before = lambda _: [known["steps"].clear() for known in fake.orders.values()]
    fake.pending = {"email": {"status": "pending", "attempts": 0}}
    result = run_command(order, fake, "order", "--style", "choreography", "--wait", "0.3")
    assert "goes on, waiting for somebody to take part: nobody has joined yet" in result.output


def test_a_style_that_there_is_not_is_wrong_usage(fake: FakeSystem) -> None:
    result = run_command(order, fake, "order", "--style", "ballet")
    assert result.exit_code == 2
    assert not fake.requests


def test_where_nothing_runs_it_says_how_to_start_it(fake: FakeSystem) -> None:
    fake.trouble = [refused_connection]
    result = run_command(order, fake, "order", "--port-base", str(random.randint(60_000, 65_000)))  # nobody's
    assert result.exit_code == 1
    assert "is duet up running?" in result.stderr
    assert "duet up --port-base" in result.stderr


def test_the_mix_is_the_same_at_every_run_and_has_members_and_others() -> None:
    orders = [mixed_order(number) for number in range(100)]
    assert orders == [mixed_order(number) for number in range(100)]
    assert sum(placed["customer"]["rewards_member"] for placed in orders) == 60
    assert len({placed["customer"]["email"] for placed in orders}) == 50
    assert not any(mixed_order(n, rewards_member=False)["customer"]["rewards_member"] for n in range(10))
