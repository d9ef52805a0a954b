"""The slow bench: stubs that take a while or hang, its ratios and verdicts, and one run of its processes."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lab.bench import register
from lab.bench.arrivals import Arrivals
from lab.bench.batching_arms import BATCHING, OFF, ON
from lab.bench.children import BenchError, fetch, running, wait_ready
from lab.bench.ledger import Account
from lab.bench.slow import SCENARIOS, Row, Scenario, Stretch, compare, completions, enter
from lab.bench.slow_report import sentence
from lab.bench.stub import Answers, Manner, listen
from lab.bench.wire import Reply, ReplyReader, Request, encode_request
from tests.support.system import ROOT

PATHS = (b"/emails", b"/shipments", b"/balances")
TEN = Scenario("10 ms", Manner(0.01))


def command(path: bytes) -> Request:
    return Request(b"POST", path, json.dumps({"order_id": "o-1", "total_minor": 100}).encode())


def test_stubs_answer_at_once_and_always_unless_they_are_told_otherwise() -> None:
    answers = Answers()
    assert {answers.wait_s(command(path)) for path in PATHS for _ in range(500)} == {0.0}


def test_one_request_in_so_many_hangs_at_each_service_and_an_order_s_do_not_hang_together() -> None:
    answers = Answers()
    answers.behave(Manner(0.01, hangs_every=200))
    hung = {path: [n for n in range(1, 1001) if answers.wait_s(command(path)) is None] for path in PATHS}
    assert [len(numbers) for numbers in hung.values()] == [5, 5, 5]
    assert len({n for numbers in hung.values() for n in numbers}) == 15


def test_which_requests_hang_is_the_same_again_once_the_stubs_are_told_again() -> None:
    answers, seen = Answers(), []
    for _ in range(2):
        answers.behave(Manner(0.0, hangs_every=7))
        seen.append([answers.wait_s(command(b"/shipments")) for _ in range(30)])
    assert seen[0] == seen[1]
    assert None in seen[0]


def test_a_request_with_many_commands_takes_the_time_and_hangs_as_one() -> None:
    answers = Answers()
    answers.behave(Manner(0.08, hangs_every=2))
    together = Request(b"POST", b"/emails/batch", b'{"items":[{"order_id":"a"},{"order_id":"b"}]}')
    assert [answers.wait_s(together) for _ in range(4)] == [0.08, None, 0.08, None]


@pytest.mark.parametrize("path", [b"/readyz", b"/counts", b"/checkouts"])
def test_what_is_no_command_is_always_answered_at_once(path: bytes) -> None:
    answers = Answers()
    answers.behave(Manner(0.08, hangs_every=1))
    assert answers.wait_s(Request(b"GET", path, b"")) == 0.0


async def told(port: int, path: str, within_s: float) -> tuple[Reply | None, float]:
    """The reply to one command, None if there was none in time; and how long it took."""
    reader, started = ReplyReader(), time.perf_counter()
    incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
    try:
        outgoing.write(encode_request("POST", path, port, b'{"order_id":"o-1"}'))
        async with asyncio.timeout(within_s):
            [reply] = reader.feed(await incoming.read(65536))
            return reply, time.perf_counter() - started
    except TimeoutError:
        return None, time.perf_counter() - started
    finally:
        outgoing.close()


async def test_a_slow_stub_answers_late_and_a_hung_request_has_no_answer_and_no_effect() -> None:
    answers = Answers()
    answers.behave(Manner(0.05, hangs_every=2))
    server, port = await listen(answers)
    async with server:
        reply, took_s = await told(port, "/emails", 5)
        assert reply is not None
        assert (reply.status, took_s >= 0.05) == (201, True)
        assert (await told(port, "/emails", 0.2))[0] is None
    assert answers.counts == Counter({"email": 1})


async def test_an_answer_that_nobody_waits_for_any_more_troubles_nobody() -> None:
    answers = Answers()
    answers.behave(Manner(0.05))
    server, port = await listen(answers)
    async with server:
        assert (await told(port, "/emails", 0.01))[0] is None
        await asyncio.sleep(0.1)
        assert (await told(port, "/emails", 5))[0] is not None


async def test_the_stub_process_is_told_its_manner_by_its_parent(tmp_path: Path) -> None:
    async with running("stub", "lab.bench.stub", env={}, log=tmp_path / "log", talks=True) as child:
        ports = await child.ask(b"", 20)
        await wait_ready(child, ports["email"])
        assert await child.ask(json.dumps(asdict(Manner(0.0, hangs_every=1))).encode(), 5) == {}
        assert (await told(ports["email"], "/emails", 0.2))[0] is None
        assert await child.ask(json.dumps(asdict(Manner(0.0, 0))).encode(), 5) == {}
        assert (await told(ports["email"], "/emails", 5))[0] is not None
        assert json.loads((await fetch(ports["email"], "/counts")).body) == {"email": 1}


def stretches(on_p99: list[float], off_p99: list[float]) -> list[Stretch]:
    made = []
    for batching, series in ((ON, on_p99), (OFF, off_p99)):
        for number, p99 in enumerate(series, start=1):
            latency = {"p50": 10.0, "p90": 10.0, "p99": p99, "max": p99}
            made.append(Stretch(TEN.name, batching, number, 100, latency, {"p99": 1.0}, 2.0))
    return made


@pytest.mark.parametrize(
    ("on_p99", "verdict"),
    [
        ([20.0, 20.2, 20.0, 20.2], "reached"),
        ([15.0, 25.0, 15.0, 25.0], "undecided"),
        ([30.0, 30.2, 30.0, 30.2], "missed"),
    ],
)
def test_batching_is_no_worse_only_if_the_whole_interval_says_so(on_p99: list[float], verdict: str) -> None:
    p50, p99 = compare(stretches(on_p99, [20.0] * 4), [TEN], judged=True)
    assert (p50.metric, p50.verdict) == ("p50", "reached")
    assert (p99.metric, p99.verdict) == ("p99", verdict)
    assert p50.ratio.confidence == pytest.approx(0.975)


def test_a_look_judges_nothing() -> None:
    figures = compare(stretches([90.0, 91.0], [20.0, 20.0]), [TEN], judged=False)
    assert [figure.verdict for figure in figures] == [None, None]
    assert sentence(figures[1]).endswith("goal <= 1.05 (not judged)")


def test_rounds_are_paired_by_their_number_whatever_the_order_in_which_they_were_made() -> None:
    made = stretches([10.0, 20.0, 40.0], [10.0, 20.0, 40.0])
    [_, p99] = compare(list(reversed(made)), [TEN], judged=True)
    assert (p99.ratio.low, p99.ratio.high) == pytest.approx((1.0, 1.0))
    assert sentence(p99) == "p99, 10 ms, batching on over off: 1.00 [1.00, 1.00] goal <= 1.05 reached"


def test_a_conductor_without_two_rounds_cannot_be_compared() -> None:
    with pytest.raises(BenchError, match="at least two pairs"):
        compare(stretches([10.0], [10.0]), [TEN], judged=True)


def arrived(**changed: object) -> Arrivals:
    made = Arrivals(100.0, 110.0, 3, 3, {}, {"p99": 0.1}, {"conductor": 0.1})
    return replace(made, **changed)  # type: ignore[arg-type]


ROWS: list[Row] = [("warm", 99.5, 900.0, True), ("a", 101.0, 10.0, True), ("b", 102.0, 30.0, False)]


def test_only_orders_that_were_due_in_the_measured_time_are_timed() -> None:
    assert completions(arrived(), ROWS) == {"p50": 10.0, "p90": 30.0, "p99": 30.0, "max": 30.0}
    assert completions(arrived(), ROWS[:1]) == {}


def test_an_account_holds_every_order_and_calls_unfinished_ones_errors() -> None:
    account = Account()
    enter(account, arrived(errors={"status-503": 1}, handed_in=2), ROWS, {"email": 3, "warehouse": 3})
    assert (account.orders, account.members) == (3, 2)
    assert account.errors == {"status-503": 1, "not-final": 2}
    assert account.calls == {"email": 3, "warehouse": 3}
    enter(account, arrived(), ROWS, {"email": 3})
    assert (account.orders, account.errors.total(), account.calls["email"]) == (6, 3, 6)


def test_services_take_one_ten_and_eighty_milliseconds_and_half_a_percent_hang() -> None:
    manners = [scenario.manner for scenario in SCENARIOS]
    assert [manner.delay_s for manner in manners] == [0.001, 0.01, 0.08, 0.01]
    assert [manner.hangs_every for manner in manners] == [0, 0, 0, 200]


def test_the_slow_command_explains_itself_and_refuses_nonsense(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    shown = CliRunner().invoke(app, ["bench", "slow", "--help"])
    assert shown.exit_code == 0
    assert "--pairs" in shown.output
    for nonsense in (["--pairs", "1"], ["--rate", "0"], ["--seconds", "0.1"]):
        assert CliRunner().invoke(app, ["bench", "slow", *nonsense]).exit_code == 2
    (tmp_path / "file").touch()
    no_folder = ["bench", "slow", "--folder", str(tmp_path / "file")]
    assert CliRunner().invoke(app, no_folder).exit_code == 2


@pytest.mark.e2e
def test_a_small_run_compares_both_conductors_in_every_scenario_and_the_ledger_balances(
    tmp_path: Path,
) -> None:
    small = ["--quick", "--seconds", "0.2", "--rate", "60", "--json", "--folder", str(tmp_path / "bench")]
    command = [sys.executable, "-m", "lab", "bench", "slow", *small]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["passed"], found["judged"]) == (True, False)
    ledger = found["ledger"]
    assert ledger["balances"] is True
    assert set(ledger["accounts"]) == set(BATCHING)
    for name, account in ledger["accounts"].items():
        assert ledger["stored"][name]["completed"] == account["orders"] > 0
    assert [row["scenario"] for row in found["medians"][::2]] == [scenario.name for scenario in SCENARIOS]
    slow = next(row for row in found["medians"] if row["scenario"] == "80 ms")
    assert slow["p50_ms"] > 80
    assert len(found["figures"]) == 2 * len(SCENARIOS)
    assert list((tmp_path / "bench").iterdir()) == []
