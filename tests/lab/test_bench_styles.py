"""The styles bench: its open loop, its two clocks, its goals, and one quick run on the real processes."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lab.bench import arrivals, register
from lab.bench.arrivals import Arrivals, OpenPlan, intended_times, run_open
from lab.bench.children import BenchError
from lab.bench.goals import CHOREOGRAPHY, FULL, HALF, ORCHESTRATION, Goal, judge
from lab.bench.lone import LonePlan, run_lone
from lab.bench.orders import prepare_orders
from lab.bench.styles_report import sentence, troubles
from lab.bench.styles_run import Found
from lab.bench.whole import free_port_base, whole_system
from lab.bench.windows import Alone, Raw, Window, summarise
from lab.bench.wire import Request
from lab.ledger import reconcile
from tests.lab.fake_checkout import fake_checkout, reply
from tests.support.system import ROOT

ORDERS = prepare_orders(seed=1, count=20)
OPENS_AT = 1_000.0


def open_plan(port: int, folder: Path, style: str = ORCHESTRATION) -> OpenPlan:
    return OpenPlan(
        port,
        style,
        rate=200.0,
        warm_up_s=0.0,
        measured_s=0.5,
        seed=3,
        processes={},
        file=str(folder / "rows"),
    )


def test_intended_times_are_a_poisson_process_and_the_same_for_the_same_seed() -> None:
    times = intended_times(rate=100, total_s=60, seed=7)
    assert times == intended_times(rate=100, total_s=60, seed=7)
    assert times == sorted(times)
    assert len(times) == pytest.approx(6000, rel=0.05)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    longer_than_mean = sum(gap > 0.01 for gap in gaps) / len(gaps)
    assert longer_than_mean == pytest.approx(0.368, abs=0.03)


async def test_every_order_is_answered_once_and_has_a_row(tmp_path: Path) -> None:
    async with fake_checkout(lambda request, number: reply(202, f"o-{number}")) as fake:
        plan = open_plan(fake.port, tmp_path)
        found = await run_open(plan, ORDERS)
    rows = json.loads((tmp_path / "rows").read_bytes())
    assert found.due == found.accepted == len(rows) == len({order_id for order_id, *_ in rows})
    assert found.errors == {}
    assert found.due == len(intended_times(plan.rate, 0.5, plan.seed))
    assert set(fake.paths) == {b"/checkouts?style=orchestration"}
    assert all(found.opens_at <= intended < found.closes_at for _, intended, *_ in rows)
    assert set(found.cpu_s) == {"generator", "others"}
    assert found.lag_ms["p50"] <= found.lag_ms["max"]


async def test_a_stall_of_the_server_shows_in_most_orders_that_were_due_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "CONNECTIONS", 2)
    async with fake_checkout(lambda request, number: reply(202, f"o-{number}")) as fake:
        fake.stalled_until = asyncio.get_running_loop().time() + arrivals.LEAD_S + 0.5
        found = await run_open(open_plan(fake.port, tmp_path), ORDERS)
    rows = json.loads((tmp_path / "rows").read_bytes())
    slow = [ack_ms for _, _, ack_ms, _ in rows if ack_ms > 100]
    assert len(slow) > 0.5 * found.due
    assert max(slow) > 350


@pytest.mark.parametrize(
    ("content", "slug"),
    [
        (reply(503, "o-1"), "status-503"),
        (reply(201, "o-1", CHOREOGRAPHY), "other-style"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n[]", "not-a-checkout"),
    ],
)
async def test_what_is_no_order_of_that_style_is_counted_and_not_accepted(
    content: bytes, slug: str, tmp_path: Path
) -> None:
    async with fake_checkout(lambda request, number: content) as fake:
        found = await run_open(open_plan(fake.port, tmp_path), ORDERS)
    assert (found.accepted, found.errors) == (0, {slug: found.due})


async def test_lost_connections_fail_their_orders_and_those_that_come_after(tmp_path: Path) -> None:
    async with fake_checkout(lambda request, number: b"") as fake:
        plan = open_plan(fake.port, tmp_path)
        found = await run_open(replace(plan, rate=1500.0), ORDERS)
    assert found.errors["connection-lost"] == arrivals.CONNECTIONS
    assert found.errors["no-connection"] == found.due - arrivals.CONNECTIONS


async def test_orders_without_an_answer_are_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "DRAIN_TIMEOUT_S", 0.05)
    async with fake_checkout(lambda request, number: reply(202, f"o-{number}")) as fake:
        fake.stalled_until = asyncio.get_running_loop().time() + 60
        found = await run_open(open_plan(fake.port, tmp_path), ORDERS)
    assert found.errors == {"unanswered": found.due}


async def test_a_lone_client_sends_one_order_after_the_other_and_wants_them_final() -> None:
    def answer(request: Request, number: int) -> bytes:
        return reply(202 if number == 5 else 201, f"o-{number}", CHOREOGRAPHY)

    async with fake_checkout(answer) as fake:
        found = await run_lone(LonePlan(fake.port, CHOREOGRAPHY, warm_up=2, orders=4, seed=1), ORDERS)
    assert found.order_ids == [f"o-{number}" for number in range(1, 7)]
    assert len(found.latency_ms) == 3
    assert found.errors == {"not-final": 1}


def raw(rows: list[tuple[str, float, float]], style: str = ORCHESTRATION) -> Raw:
    plan = OpenPlan(1, style, 400.0, 1.0, 10.0, 3, {}, "")
    told = Arrivals(
        opens_at=OPENS_AT,
        closes_at=OPENS_AT + 10,
        due=len(rows) + 1,
        accepted=len(rows),
        errors={"status-503": 1, "unanswered": 2},
        lag_ms={"p50": 0.1, "p99": 1.0},
        cpu_s={"checkout": 0.4, "broker": 0.2, "generator": 0.1, "others": 0.5},
    )
    return Raw(FULL, 1, plan, told, rows, undelivered=0)


def test_a_window_counts_what_happened_in_it_and_times_what_was_due_in_it() -> None:
    rows = [
        ("warm-up", OPENS_AT - 0.5, 100.0),  # acked before, completed within
        ("early", OPENS_AT + 1, 10.0),
        ("late", OPENS_AT + 9, 20.0),  # completed after
        ("never", OPENS_AT + 5, 30.0),
    ]
    completed = {"warm-up": OPENS_AT + 0.5, "early": OPENS_AT + 1.05, "late": OPENS_AT + 12, "never": None}
    window = summarise("null", raw(rows), completed)
    assert (window.accepted_rate, window.completed_rate) == (0.3, 0.2)
    assert window.ack_ms == {"p50": 20.0, "p90": 30.0, "p99": 30.0, "max": 30.0}
    assert window.completion_ms["p50"] == pytest.approx(50)
    assert window.completion_ms["max"] == pytest.approx(3000)
    assert (window.turned_away, window.errors) == (1, {"unanswered": 2})
    assert window.unfinished == 1
    assert window.drain_s == pytest.approx(2)
    assert window.cpu_ms == pytest.approx({"checkout": 200, "broker": 100, "generator": 50})
    assert window.system_cpu_ms == pytest.approx(300)
    assert window.others_cpu_share == pytest.approx(0.05)


def test_a_window_in_which_nothing_was_completed_has_no_figures_to_boast_of() -> None:
    window = summarise("null", raw([("never", OPENS_AT + 5, 30.0)]), {})
    assert (window.completed_rate, window.completion_ms, window.cpu_ms) == (0.0, {}, {})
    assert window.unfinished == 1


def windows(style: str, offered: float, rate: float, drain_s: float, p99_ms: float) -> list[Window]:
    at = summarise("null", raw([("o-1", OPENS_AT + 1, 1.0)], style), {"o-1": OPENS_AT + 2})
    slow = {"p50": 1.0, "p99": p99_ms}
    full = replace(at, offered_rate=offered, completed_rate=rate, drain_s=drain_s, completion_ms={"p99": 9e9})
    better = replace(full, round=2, completed_rate=rate + 100, drain_s=0.0)
    half = replace(at, load=HALF, offered_rate=offered / 2, completed_rate=rate / 2, completion_ms=slow)
    return [better, full, half, replace(half, round=2, completion_ms={"p50": 1.0, "p99": 1.0})]


def alone(style: str, p50_ms: float) -> Alone:
    return Alone("null", style, 100, {}, {"p50": p50_ms, "p99": 99.0})


def test_goals_are_held_against_the_worst_window() -> None:
    good = windows(CHOREOGRAPHY, 936, 901, 1.0, 1999)
    assert [goal.met for goal in judge("null", good, [alone(CHOREOGRAPHY, 24)], {"a": 400})] == [True] * 5
    bad = windows(CHOREOGRAPHY, 936, 899, 11.0, 2001)
    assert [goal.met for goal in judge("null", bad, [alone(CHOREOGRAPHY, 26)], {"a": 400, "b": 101})] == [
        False
    ] * 5


def test_a_rate_that_was_never_offered_is_not_judged() -> None:
    met = [goal.met for goal in judge("null", windows(ORCHESTRATION, 200, 199, 0, 10), [], {"a": 1})]
    assert met == [True, None, None, None]


def test_half_windows_without_a_completion_miss_their_goal() -> None:
    found = [replace(window, completion_ms={}) for window in windows(ORCHESTRATION, 936, 911, 0, 10)]
    assert [goal.met for goal in judge("null", found, [], {})] == [True, True, True, False]


def test_with_real_mail_only_lone_orders_and_memory_are_judged() -> None:
    goals = judge("smtp", windows(ORCHESTRATION, 312, 1, 99, 9e9), [alone(ORCHESTRATION, 20)], {"a": 1})
    assert [(goal.name, goal.met) for goal in goals] == [
        ("orchestration: a lone order's completion p50", True),
        ("the idle system's memory", True),
    ]


@pytest.mark.parametrize(
    ("goal", "line"),
    [
        (Goal("x", "null", 311.2, "at_least", 300, "/s"), "x (mail null): 311.2/s, at least 300/s: met"),
        (Goal("x", "smtp", 25.04, "below", 25, "ms"), "x (mail smtp): 25.0 ms, below 25 ms: MISSED"),
        (
            Goal("x", "null", 9, "below", 10, "s", offered=False),
            "x (mail null): 9.0 s, below 10 s: not measured at this rate",
        ),
    ],
)
def test_a_goal_is_told_with_its_figure(goal: Goal, line: str) -> None:
    assert sentence(goal) == line


def found(ledger_ids: list[str], errors: dict[str, int], *goals: Goal) -> Found:
    at = replace(summarise("null", raw([]), {}), errors=errors)
    return Found("null", {}, [at], [], reconcile(ledger_ids, [], {}), list(goals))


def test_a_run_passes_only_without_trouble() -> None:
    missed = Goal("x", "null", 1, "at_least", 2, "/s")
    assert found([], {}).passed
    assert not found([], {}, missed).passed
    assert not found(["lost-order"], {}).passed
    assert not found([], {"status-500": 2}).passed
    assert list(troubles(found([], {"status-500": 2}))) == [
        "orchestration, full, round 1: 2 orders ended as status-500"
    ]
    [lost] = troubles(found(["lost-order"], {}))
    assert "'lost': 1" in lost
    assert "lost-order" in lost


def test_a_port_base_leaves_room_for_every_port_of_a_system() -> None:
    base = free_port_base()
    assert base % 40 == 0
    assert 20_000 <= base < 31_000


def test_the_styles_command_explains_itself_and_refuses_nonsense() -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    shown = CliRunner().invoke(app, ["bench", "styles", "--help"])
    assert shown.exit_code == 0
    assert "--mail" in shown.output
    assert CliRunner().invoke(app, ["bench", "styles", "--mail", "pigeon"]).exit_code == 2
    assert CliRunner().invoke(app, ["bench", "styles", "--rate", "0"]).exit_code == 2


@pytest.mark.e2e
async def test_a_system_of_which_a_process_died_is_not_measured_on(tmp_path: Path) -> None:
    async with whole_system(tmp_path, "null") as whole:
        await whole.check_alive()
        sizes = whole.memory_mb()
        assert set(whole.pids) <= set(sizes)
        assert all(size > 1 for size in sizes.values())
        assert await whole.undelivered() == 0
        os.kill(whole.pids["email"], signal.SIGKILL)
        with pytest.raises(BenchError, match="email"):
            await _until_noticed(whole.check_alive)


async def _until_noticed(check: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        await check()
        await asyncio.sleep(0.05)


@pytest.mark.e2e
def test_a_quick_run_measures_both_styles_on_the_real_system_and_the_ledger_balances(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "bench", "styles", "--quick", "--folder", str(tmp_path / "bench")]
    kept = ["--json", str(tmp_path / "found.json"), "--out", str(tmp_path / "rows")]
    done = subprocess.run([*command, *kept], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    [system] = told["systems"]
    assert system["ledger"]["balances"] is True
    assert (told["passed"], told["judged"], told["goals"]) == (True, False, [])
    shapes = [(window["style"], window["load"]) for window in system["windows"]]
    assert shapes == [(style, load) for load in (FULL, HALF) for style in (ORCHESTRATION, CHOREOGRAPHY)]
    for window in system["windows"]:
        assert window["accepted"] == window["due"] > 0
        assert window["unfinished"] == 0
        assert 0 < window["ack_ms"]["p50"] <= window["ack_ms"]["p99"]
        assert 0 < window["completion_ms"]["p50"] <= window["completion_ms"]["p99"]
        assert window["completed_rate"] > 0
        assert set(window["cpu_ms"]) == {*system["idle_mb"], "generator"}
    assert [lone["style"] for lone in system["lone"]] == [ORCHESTRATION, CHOREOGRAPHY]
    assert all(lone["orders"] == 10 and not lone["errors"] for lone in system["lone"])
    promised = sum(window["accepted"] for window in system["windows"]) + 2 * 20
    assert system["ledger"]["accepted"] == system["ledger"]["orders"]["completed"] == promised
    rows = [len(file.read_text().splitlines()) - 1 for file in (tmp_path / "rows").iterdir()]
    assert sorted(rows) == sorted(window["accepted"] for window in system["windows"])
    assert list((tmp_path / "bench").iterdir()) == []
