"""The overload and the storm bench: their figures and goals, what they tell, and one small run of each."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from lab.bench import overload, register, storm
from lab.bench.children import BenchError
from lab.bench.course import OVERLOADED, Bound, Offered
from lab.bench.overload import CHOREOGRAPHY, ORCHESTRATION
from lab.bench.phased import Answers
from lab.bench.setting import Setting
from lab.bench.storm import Storm, calls_told, set_capacity
from lab.bench.strain_report import as_json, sentence, show_overload, show_storm, troubles
from lab.bench.trial import Books
from lab.ledger import reconcile
from servicekit.turns import read_capacity
from tests.support.system import ROOT

BALANCED = reconcile([], [], {})
ANSWERS = Answers(100, {"p50": 0.1, "p99": 1.0, "max": 2.0})
SETTING = Setting(2, "a processor", "Linux", 0.1, "ext4", {"p50": 0.1, "p99": 0.2}, "3", "3", {}, None, None)
CROWD = overload.Shape(
    (ORCHESTRATION,), 100, 10, warm_up_s=1, before_s=4, overload_s=5, after_s=10, judged=True
)
BLOW = storm.Shape(
    (ORCHESTRATION,), 100, 0.8, 0.2, warm_up_s=1, before_s=4, storm_s=5, after_s=20, judged=True
)
START = 1_000.0


def served(at: float, takes_s: float = 0.05) -> Offered:
    return Offered(at, at + 0.01, None, at + takes_s)


def steadily(since: float, until: float, rate: float, takes_s: float = 0.05) -> list[Offered]:
    return [served(START + since + n / rate, takes_s) for n in range(round((until - since) * rate))]


def turned_away(since: float, until: float, rate: float) -> list[Offered]:
    times = (START + since + n / rate for n in range(round((until - since) * rate)))
    return [Offered(at, at + 0.2, OVERLOADED, None) for at in times]


def books(*orders: Offered) -> Books:
    return Books(sorted(orders, key=lambda each: each.intended), BALANCED)


def crowded(style: str, *orders: Offered, shape: overload.Shape = CROWD) -> overload.Found:
    calm = [*steadily(0, 5, 50), *steadily(10, 20, 50)]
    return overload.summarise(style, shape, START, ANSWERS, books(*calm, *orders))


def test_an_overload_is_ten_times_the_capacity_between_two_times_of_half_of_it() -> None:
    assert [(phase.rate, phase.seconds) for phase in CROWD.phases] == [(50, 1), (50, 4), (1000, 5), (50, 10)]
    assert overload.settings(CROWD) == {"WAREHOUSE_SIMULATE_CAPACITY": "100"}


def test_a_backlog_is_waited_for_twice_as_long_as_it_takes_at_best_and_never_for_ever() -> None:
    assert CROWD.patience_s == 2 * (10 * 5 + 10 / 2) + overload.QUIET_S
    assert replace(CROWD, times=50, overload_s=120).patience_s == overload.LONGEST_QUIET_S


def test_an_overload_s_figures_are_of_the_orders_that_were_due_in_it() -> None:
    found = crowded(ORCHESTRATION, *steadily(5, 10, 95, takes_s=0.5), *turned_away(5, 10, 905))
    assert (found.due, found.accepted, found.turned_away, found.turned_away_after) == (5000, 475, 4525, 0)
    # Half a second's worth of them are completed only afterwards; of before, two or three within.
    assert found.goodput == pytest.approx(95 * 4.5 / 5, abs=1)
    assert found.refusal_ms["p99"] == pytest.approx(200)
    assert found.before_ms["p99"] == pytest.approx(50)
    assert found.completion_ms["p99"] == pytest.approx(500)
    assert found.backlog == pytest.approx(0.5 * 95, abs=1)
    assert found.drained_after_s == pytest.approx(0.5, abs=0.02)
    assert found.normal_after_s == 0.0
    assert found.errors == {}


def test_orchestration_is_to_complete_nine_tenths_of_the_capacity_and_to_recover_in_five_seconds() -> None:
    good = crowded(ORCHESTRATION, *steadily(5, 10, 100), *turned_away(5, 10, 900))
    assert [goal.met for goal in good.goals] == [True, True]
    assert good.passed
    late = [served(START + at, takes_s=2.0) for at in (14.9, 17.5)]
    bad = crowded(
        ORCHESTRATION, *steadily(5, 10, 80), *turned_away(5, 10, 900), *turned_away(10, 13, 1), *late
    )
    assert [goal.met for goal in bad.goals] == [False, False]
    assert bad.turned_away_after == 3
    assert not bad.passed


def test_choreography_is_to_turn_nobody_away_and_its_backlog_is_told() -> None:
    good = crowded(CHOREOGRAPHY, *steadily(5, 10, 1000, takes_s=45))
    assert [(goal.name, goal.met) for goal in good.goals] == [("choreography: orders turned away", True)]
    assert good.backlog == pytest.approx(5000, abs=10)  # the last had no answer yet
    assert good.drained_after_s == pytest.approx(45, abs=0.1)
    bad = crowded(CHOREOGRAPHY, *turned_away(11, 12, 1))
    assert [goal.found for goal in bad.goals] == [1.0]
    assert not bad.passed


def test_a_look_at_an_overload_has_no_goals_but_an_error_fails_it() -> None:
    look = replace(CROWD, judged=False)
    assert crowded(ORCHESTRATION, shape=look).passed
    lost = Offered(START + 6, START + 7, "connection-lost", None)
    found = crowded(ORCHESTRATION, lost, shape=look)
    assert (found.errors, found.passed) == ({"connection-lost": 1}, False)


def test_a_ledger_that_does_not_balance_fails_a_run() -> None:
    unbalanced = Books(steadily(0, 20, 50), reconcile(["lost-order"], [], {}))
    found = overload.summarise(ORCHESTRATION, replace(CROWD, judged=False), START, ANSWERS, unbalanced)
    assert not found.passed
    [line] = troubles(found.style, found.errors, found.ledger)
    assert "lost-order" in line


def stormy(*orders: Offered, told: tuple[int, int, int] = (400, 500, 2_400)) -> storm.Found:
    told_before, told_by_rise, told_in_the_end = told
    hit = Storm(START + 5, START + 10, told_before, told_by_rise, told_in_the_end)
    return storm.summarise(ORCHESTRATION, BLOW, START, hit, ANSWERS, books(*orders))


def test_a_storm_s_load_is_four_fifths_of_the_capacity_all_the_time() -> None:
    assert (BLOW.rate, BLOW.length_s) == (80, 30)


def test_attempts_are_counted_while_the_service_is_slow_and_until_all_is_quiet() -> None:
    calm = steadily(0, 30, 80)
    found = stormy(*calm)
    assert (found.due, found.accepted) == (400, 400)
    assert found.attempts_while_low == pytest.approx(100 / 400)
    assert found.attempts_in_all == pytest.approx(2_000 / 2_000)
    assert [goal.met for goal in found.goals] == [True, True, True]
    assert [goal.met for goal in stormy(*calm, told=(400, 900, 2_400)).goals] == [False, True, True]
    assert [goal.met for goal in stormy(*calm, told=(400, 500, 2_900)).goals] == [True, False, True]


def test_attempts_are_shared_out_among_the_orders_that_were_accepted() -> None:
    away = turned_away(5, 10, 40)
    found = stormy(
        *steadily(0, 5, 80), *steadily(5, 10, 40), *away, *steadily(10, 30, 80), told=(0, 240, 1_800)
    )
    assert (found.due, found.accepted, found.turned_away) == (400, 200, 200)
    assert found.attempts_while_low == pytest.approx(240 / 200)
    assert found.attempts_in_all == pytest.approx(1_800 / 1_800)


def test_goodput_that_is_full_too_late_misses_its_goal_and_the_backlog_says_when_it_was_gone() -> None:
    lying = steadily(5, 10, 80, takes_s=14)  # completed from 19 s to 24 s
    stuck = [each for each in steadily(10, 19, 80) if each.intended % 1 < 0.5]
    found = stormy(*steadily(0, 5, 80), *lying, *stuck, *steadily(19, 30, 80), told=(400, 500, 2_000))
    assert found.full_after_s is not None
    assert found.full_after_s > overload.LONGEST_RECOVERY_S
    assert [goal.met for goal in found.goals] == [True, True, False]
    assert found.backlog == pytest.approx(400, abs=8)
    assert found.backlog_soon == pytest.approx(400, abs=8)
    assert found.drained_after_s == pytest.approx(14, abs=0.1)


METRICS = """# TYPE step_attempts_total counter
step_attempts_total{service="warehouse",outcome="succeeded"} 7.0
step_attempts_total{service="warehouse",outcome="timeout"} 2.0
step_attempts_total{service="warehouse",outcome="too-many-in-flight"} 5.0
step_attempts_total{service="email",outcome="succeeded"} 9.0
# TYPE step_attempts_created gauge
step_attempts_created{service="warehouse",outcome="succeeded"} 1.7e9
"""


def test_calls_that_were_never_sent_are_no_attempts_at_the_service() -> None:
    assert calls_told(METRICS, "warehouse") == 9
    assert calls_told(METRICS, "rewards") == 0
    with pytest.raises(BenchError, match="no step_attempts"):
        calls_told("# TYPE other gauge\nother 1.0\n", "warehouse")


def test_the_capacity_is_written_as_a_service_reads_it_and_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "capacity"
    for per_s in (250.0, 50.0, 12.5):
        set_capacity(file, per_s)
        assert read_capacity(file) == per_s
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("goal", "line"),
    [
        (Bound("x", 95.24, "at_least", 90, "/s"), "x: 95.24/s, at least 90/s: met"),
        (Bound("x", 6.0, "at_most", 5, "s"), "x: 6.00 s, at most 5 s: MISSED"),
        (Bound("x", None, "at_most", 5, "s"), "x: not in time, at most 5 s: MISSED"),
        (Bound("x", 1.1, "at_most", 1.2, ""), "x: 1.10, at most 1.2: met"),
    ],
)
def test_a_goal_is_told_with_its_figure(goal: Bound, line: str) -> None:
    assert sentence(goal) == line


def test_a_report_shows_each_style_and_its_document_is_plain_json() -> None:
    found = crowded(ORCHESTRATION, *turned_away(5, 10, 900))
    rush = overload.Outcome(SETTING, CROWD, [found, replace(found, style=CHOREOGRAPHY, normal_after_s=None)])
    blown = storm.Outcome(SETTING, BLOW, [stormy(*steadily(0, 30, 80))])
    console = Console(width=180, record=True, file=io.StringIO())
    show_overload(rush, console)
    show_storm(blown, console)
    shown = console.export_text()
    for part in (
        ORCHESTRATION,
        CHOREOGRAPHY,
        "4500",
        "not in time",
        "MISSED",
        "attempts an order",
        "full goodput",
    ):
        assert part in shown
    for outcome, bench in ((rush, "overload"), (blown, "storm")):
        told: dict[str, Any] = json.loads(json.dumps(as_json(outcome)))
        assert told["bench"] == bench
        assert told["passed"] is outcome.passed
        assert {style["ledger"]["balances"] for style in told["styles"]} == {True}
        assert all("line" in goal for style in told["styles"] for goal in style["goals"])


@pytest.mark.parametrize("name", ["overload", "storm"])
def test_the_commands_explain_themselves_and_refuse_nonsense(name: str) -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    shown = CliRunner().invoke(app, ["bench", name, "--help"])
    assert shown.exit_code == 0
    assert "--capacity" in shown.output
    for nonsense in (["--capacity", "0"], ["--seconds", "0"], ["--after", "1"], ["--style", "none"]):
        assert CliRunner().invoke(app, ["bench", name, *nonsense]).exit_code == 2


def test_more_than_this_generator_can_offer_is_refused() -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    refused = CliRunner().invoke(app, ["bench", "overload", "--capacity", "1000", "--times", "3"])
    assert refused.exit_code == 2
    assert "at most 2000" in refused.output


def run_bench(name: str, folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "lab", "bench", name, "--quick", "--json", "--folder", str(folder)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.iterdir()) == []
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["passed"], told["judged"]) == (True, False)
    return told


@pytest.mark.e2e
def test_a_small_overload_is_offered_and_its_ledger_balances(tmp_path: Path) -> None:
    options = ("--style", CHOREOGRAPHY, "--capacity", "40", "--times", "5", "--seconds", "1", "--after", "4")
    told = run_bench("overload", tmp_path / "bench", *options)
    [found] = told["styles"]
    assert found["due"] == 200
    assert found["accepted"] + found["turned_away"] == 200
    assert found["goodput"] <= 60
    assert found["backlog"] > 0
    assert found["drained_after_s"] > 1
    ledger = found["ledger"]
    assert ledger["accepted"] == ledger["orders"]["completed"] > found["accepted"]


@pytest.mark.e2e
def test_a_small_storm_blows_over_and_its_ledger_balances(tmp_path: Path) -> None:
    options = ("--style", ORCHESTRATION, "--capacity", "50", "--seconds", "1", "--after", "5")
    told = run_bench("storm", tmp_path / "bench", *options)
    [found] = told["styles"]
    assert found["due"] == pytest.approx(40, abs=3)
    assert found["attempts_in_all"] == pytest.approx(1.0, abs=0.2)
    assert found["backlog"] > 5
    assert found["completion_ms"]["max"] > 2 * found["before_ms"]["p50"]
    assert found["ledger"]["balances"] is True
