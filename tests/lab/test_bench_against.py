"""Two trees beside each other, and the cost by rate: plans, ratios, a small run of each on real systems."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.bench.against import OURS, THEIRS, Side, compare, plan_windows
from lab.bench.against_report import ledger_lines, sentence
from lab.bench.children import BenchError
from lab.bench.curve import Shape, cost_points
from lab.bench.goals import CHOREOGRAPHY, ORCHESTRATION
from lab.bench.revision import check_out, find_commit
from lab.bench.whole import whole_system
from lab.bench.windows import Window
from lab.errors import LabError
from lab.ledger import reconcile
from tests.support.system import ROOT

CLOCK = {"p50": 5.0, "p90": 6.0, "p99": 9.0, "max": 9.0}
BOTH = (ORCHESTRATION, CHOREOGRAPHY)
SCRIPT = [sys.executable, "-m", "lab", "bench", "styles", "--quick", "--style", ORCHESTRATION]


def window(style: str, cpu_ms: float, rate: float = 50.0) -> Window:
    return Window(
        mail="null",
        style=style,
        load="full",
        round=1,
        offered_rate=rate,
        measured_s=10.0,
        due=500,
        accepted=499,
        turned_away=1,
        unfinished=0,
        errors={},
        accepted_rate=49.0,
        completed_rate=rate - 1,
        ack_ms=CLOCK,
        completion_ms=CLOCK,
        drain_s=0.1,
        cpu_ms={"checkout": cpu_ms, "generator": 99.0},
        others_cpu_share=0.0,
        generator_lag_ms=CLOCK,
        undelivered=0,
    )


def test_each_style_s_windows_go_a_b_b_a_and_the_styles_take_turns() -> None:
    plan = plan_windows(BOTH, 4)
    for style in BOTH:
        sides = [side for told, side, _ in plan if told == style]
        assert sides == [OURS, THEIRS, THEIRS, OURS] * 2
    assert [style for style, _, _ in plan[::2]] == [*BOTH, *BOTH[::-1]] * 2
    assert [number for _, _, number in plan] == sorted(number for _, _, number in plan)


def test_the_cpu_time_of_an_order_is_a_ratio_of_pairs_by_style() -> None:
    ours = [window(style, cpu) for cpu in (5.0, 10.0) for style in BOTH]
    theirs = [window(style, cpu) for cpu in (10.0, 20.0) for style in BOTH]
    figures = compare(ours, theirs, BOTH, judged=True)
    assert [(each.style, each.ratio.point, each.verdict) for each in figures] == [
        (style, pytest.approx(0.5), "reached") for style in BOTH
    ]
    assert {each.ratio.confidence for each in figures} == {0.975}
    missed = compare(theirs, theirs, BOTH, judged=True)
    assert {each.verdict for each in missed} == {"missed"}
    told = "orchestration: CPU for each completed order vs 0123456789ab: "
    assert sentence(missed[0], "0123456789abcdef") == f"{told}1.00 [1.00, 1.00] goal <= 0.6 missed"
    look = compare(ours, theirs, BOTH, judged=False)[0]
    assert sentence(look, "0123456789abcdef") == f"{told}0.50 [0.50, 0.50] (a look, not judged)"


def test_a_window_that_completed_nothing_is_no_part_of_a_ratio() -> None:
    idle = replace(window(ORCHESTRATION, 1.0), cpu_ms={}, completion_ms={})
    pair = [window(ORCHESTRATION, 1.0), idle]
    with pytest.raises(BenchError, match="orchestration completed no order"):
        compare(pair, pair[:1] * 2, (ORCHESTRATION,), judged=True)


def test_one_side_with_an_error_or_a_lost_order_is_not_sound() -> None:
    fine = [window(ORCHESTRATION, 1.0)]
    assert Side(OURS, fine, reconcile([], [], {})).sound
    lost = Side(THEIRS, fine, reconcile(["lost-order"], [], {}))
    failed = Side(THEIRS, [replace(fine[0], errors={"status-500": 2})], reconcile([], [], {}))
    assert not lost.sound
    assert not failed.sound
    assert any("DOES NOT BALANCE" in line for line in ledger_lines(lost))
    assert any("2 orders ended as status-500" in line for line in ledger_lines(failed))


def test_the_curve_has_a_point_for_each_style_and_rate_over_all_rounds() -> None:
    shape = Shape((50.0, 100.0), BOTH, rounds=2, measured_s=10.0, warm_up_s=0.0)
    found = [
        window(style, cpu + rate / 100, rate)
        for cpu in (1.0, 2.0)
        for rate in shape.rates
        for style in shape.styles
    ]
    points = cost_points(found, shape)
    assert [(point.style, point.offered_rate) for point in points] == [
        (style, rate) for style in BOTH for rate in (50.0, 100.0)
    ]
    assert points[0].cpu_ms.told() == "2.00 [1.50, 2.50]"
    assert points[1].completed_rate.median == 99.0
    assert (points[0].ack_ms, points[0].turned_away) == ({"p50": 5.0, "p99": 9.0}, 2)


def test_a_rate_at_which_nothing_was_completed_has_no_point() -> None:
    shape = Shape((50.0,), (ORCHESTRATION,), rounds=1, measured_s=10.0, warm_up_s=0.0)
    with pytest.raises(BenchError, match="50 orders a second"):
        cost_points([replace(window(ORCHESTRATION, 1.0), cpu_ms={})], shape)


def test_a_revision_is_checked_out_beside_this_tree(tmp_path: Path) -> None:
    commit = find_commit("HEAD")
    assert len(commit) == 40
    tree = check_out(commit, tmp_path / "tree")
    assert (tree / "lab" / "__main__.py").is_file()
    with pytest.raises(LabError):
        check_out(commit, tmp_path / "tree")


@pytest.mark.parametrize("revision", ["no-such-revision", "", "--all", "HEAD:README.md"])
def test_a_revision_that_git_does_not_know_is_refused_by_its_name(revision: str) -> None:
    with pytest.raises(LabError, match="cannot find the revision"):
        find_commit(revision)


@pytest.mark.e2e
async def test_a_system_of_another_tree_runs_that_tree_s_code(tmp_path: Path) -> None:
    tree = check_out(find_commit("HEAD"), tmp_path / "tree")
    async with whole_system(tmp_path, "null", tree=tree) as whole:
        for name in ("supervisor", *(service.name for service in whole.system.services)):
            paths = psutil.Process(whole.pids[name]).environ()["PYTHONPATH"]
            assert set(paths.split(os.pathsep)) == {str(tree)}, name


@pytest.mark.e2e
def test_a_small_run_against_a_revision_measures_both_and_both_ledgers_balance(tmp_path: Path) -> None:
    asked = ["--against", "HEAD", "--pairs", "2", "--seconds", "1", "--rate", "30"]
    kept = ["--json", str(tmp_path / "found.json"), "--out", str(tmp_path / "rows")]
    command = [*SCRIPT, *asked, *kept, "--folder", str(tmp_path / "bench")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["commit"] == find_commit("HEAD")
    assert [side["name"] for side in told["sides"]] == [OURS, THEIRS]
    for side in told["sides"]:
        assert side["ledger"]["balances"] is True
        assert [each["offered_rate"] for each in side["windows"]] == [30, 30]
        assert side["ledger"]["accepted"] == sum(each["accepted"] for each in side["windows"]) > 0
        assert len(list((tmp_path / "rows" / side["name"]).iterdir())) == 2
    [figure] = told["figures"]
    assert (figure["style"], figure["ratio"]["pairs"], figure["verdict"]) == (ORCHESTRATION, 2, None)
    assert list((tmp_path / "bench").iterdir()) == []


@pytest.mark.e2e
def test_a_small_cost_curve_has_every_rate_and_its_ledger_balances(tmp_path: Path) -> None:
    asked = ["--rates", "60,20", "--seconds", "1", "--json", str(tmp_path / "found.json")]
    command = [*SCRIPT, *asked, "--folder", str(tmp_path / "bench")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    assert [(point["style"], point["offered_rate"]) for point in told["points"]] == [
        (ORCHESTRATION, 20),
        (ORCHESTRATION, 60),
    ]
    for point in told["points"]:
        assert point["cpu_ms"]["median"] > 0
        assert 0 < point["ack_ms"]["p50"] <= point["ack_ms"]["p99"]
    assert told["ledger"]["balances"] is True
    assert list((tmp_path / "bench").iterdir()) == []
