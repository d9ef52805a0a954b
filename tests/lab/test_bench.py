"""The conductor bench: its statistics, ledger and verdicts, its child processes and its command."""

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lab.bench import parse_clients, register
from lab.bench.arms import DUET, DUET_PLAIN, NAIVE_AIOHTTP, NAIVE_HTTPX
from lab.bench.children import BenchError, Child, fetch, running, wait_ready
from lab.bench.closed import CEILING, others_share
from lab.bench.comparison import compare, headroom
from lab.bench.cost import cost_curve, spread
from lab.bench.generator import Measurement
from lab.bench.intervals import Goal, Ratio, each_of, judge, paired_ratio, percentile, t_between, t_quantile
from lab.bench.ledger import Account, orders_by_status, reconcile
from lab.bench.report import proof, sentence
from lab.bench.setting import measure_fsync
from lab.errors import LabError


@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    [
        (0.95, 1, 12.7062),
        (0.95, 2, 4.3027),
        (0.95, 5, 2.5706),
        (0.95, 6, 2.4469),
        (0.99, 10, 3.1693),
        (0.95, 29, 2.0452),
        (0.90, 4, 2.1318),
    ],
)
def test_t_quantiles_are_those_of_the_printed_tables(
    confidence: float, degrees: int, quantile: float
) -> None:
    assert t_quantile(confidence, degrees) == pytest.approx(quantile, abs=5e-5)


def test_t_with_many_degrees_of_freedom_is_nearly_normal() -> None:
    assert t_between(1.959964, 100_000) == pytest.approx(0.95, abs=1e-5)


@pytest.mark.parametrize(("confidence", "degrees"), [(0.0, 5), (1.0, 5), (0.95, 0)])
def test_a_t_quantile_of_nonsense_is_refused(confidence: float, degrees: int) -> None:
    with pytest.raises(ValueError, match=r"confidence|degree"):
        t_quantile(confidence, degrees)


def test_a_paired_ratio_is_the_geometric_mean_with_its_t_interval() -> None:
    ratio = paired_ratio([8, 9, 10], [10, 10, 10], confidence=0.95)
    logs = [math.log(0.8), math.log(0.9), math.log(1.0)]
    mean = sum(logs) / 3
    deviation = math.sqrt(sum((each - mean) ** 2 for each in logs) / 2)
    half = 4.302653 * deviation / math.sqrt(3)
    assert ratio.point == pytest.approx(math.exp(mean))
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(mean - half), math.exp(mean + half)), rel=1e-5)
    assert ratio.pairs == 3


def test_drift_that_hits_both_arms_alike_leaves_the_paired_ratio_exact() -> None:
    ratio = paired_ratio([80, 40, 160], [100, 50, 200], confidence=0.95)
    assert (ratio.low, ratio.point, ratio.high) == pytest.approx((0.8, 0.8, 0.8))


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, 0.0], [1.0, 1.0])])
def test_a_ratio_of_too_few_or_unpaired_or_zero_figures_is_refused(
    ours: list[float], theirs: list[float]
) -> None:
    with pytest.raises(ValueError, match="paired ratio"):
        paired_ratio(ours, theirs, confidence=0.95)


@pytest.mark.parametrize(
    ("low", "high", "kind", "verdict"),
    [
        (0.61, 0.70, "at_least", "reached"),
        (0.60, 0.70, "at_least", "reached"),
        (0.55, 0.65, "at_least", "undecided"),
        (0.40, 0.59, "at_least", "missed"),
        (0.40, 0.60, "at_most", "reached"),
        (0.55, 0.65, "at_most", "undecided"),
        (0.61, 0.70, "at_most", "missed"),
    ],
)
def test_a_goal_is_judged_by_the_whole_interval(low: float, high: float, kind: str, verdict: str) -> None:
    goal = Goal("at_least" if kind == "at_least" else "at_most", 0.6)
    assert judge(Ratio((low + high) / 2, low, high, 6, 0.95), goal) == verdict


def test_the_confidence_of_each_figure_is_corrected_for_their_number() -> None:
    assert each_of(1) == pytest.approx(0.95)
    assert each_of(5) == pytest.approx(0.99)
    assert each_of(0) == pytest.approx(0.95)


def test_percentiles_are_of_the_nearest_rank() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.99) == 7
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def account(orders: int, members: int, **calls: int) -> Account:
    made = Account(orders=orders, members=members)
    made.calls.update({"email": orders, "warehouse": orders, "rewards": members, **calls})
    return made


def test_a_ledger_that_adds_up_balances() -> None:
    ledger = reconcile(
        {DUET: account(100, 80), NAIVE_AIOHTTP: account(120, 96)},
        {DUET: {"completed": 100, "in_progress": 0}},
    )
    assert ledger.balances
    assert ledger.as_json()["accounts"][DUET]["calls"] == {"email": 100, "warehouse": 100, "rewards": 80}


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ({"completed": 99}, "told of 100 completed orders, its database holds 99"),
        ({"completed": 101}, "holds 101"),
        ({}, "holds 0"),
        ({"completed": 100, "in_progress": 1}, "1 orders are in_progress"),
    ],
)
def test_a_ledger_fails_when_the_database_disagrees_with_what_clients_were_told(
    stored: dict[str, int], problem: str
) -> None:
    ledger = reconcile({DUET: account(100, 80)}, {DUET: stored})
    assert not ledger.balances
    assert problem in ledger.problems[0]


def test_the_database_of_each_durable_arm_is_held_against_its_clients() -> None:
    accounts = {DUET: account(100, 80), DUET_PLAIN: account(90, 70)}
    ledger = reconcile(accounts, {DUET: {"completed": 100}, DUET_PLAIN: {"completed": 89}})
    [problem] = ledger.problems
    assert problem.startswith("duet-plain: clients were told of 90")
    assert ledger.as_json()["stored"][DUET_PLAIN] == {"completed": 89}


def test_a_ledger_fails_on_errors_repeated_ids_and_calls_that_were_never_made() -> None:
    bad = account(100, 80, rewards=79)
    bad.errors["status-503"] = 2
    bad.repeated_ids = 1
    ledger = reconcile({DUET: account(100, 80), NAIVE_HTTPX: bad}, {DUET: {"completed": 100}})
    assert len(ledger.problems) == 3
    assert not ledger.balances


def test_repeated_calls_of_a_service_do_not_unbalance_the_ledger() -> None:
    assert reconcile({DUET: account(100, 80, email=103)}, {DUET: {"completed": 100}}).balances


def test_orders_by_status_are_read_from_the_metrics() -> None:
    text = '# TYPE orders gauge\norders{status="completed"} 7.0\n'
    assert orders_by_status(text) == {"completed": 7}
    with pytest.raises(BenchError, match="no orders"):
        orders_by_status("# TYPE other gauge\nother 1.0\n")


def measurement(arm: str, clients: int, rate: float, p50: float = 1.0) -> Measurement:
    latency = {"p50": p50, "p90": p50, "p99": p50, "max": p50}
    cpu = {"conductor": 1.0, "stubs": 0.1, "generator": 0.2}
    return Measurement(arm, clients, 100, 80, 0, {}, 100, 1.0, rate, latency, cpu)


def test_the_goals_are_set_against_the_aiohttp_baseline_alone() -> None:
    rounds = [
        measurement(arm, clients, rate, p50)
        for clients in (1, 16)
        for _ in range(3)
        for arm, rate, p50 in (
            (DUET, 200, 1.6),
            (DUET_PLAIN, 80, 1.6),
            (NAIVE_AIOHTTP, 100, 1.0),
            (NAIVE_HTTPX, 20, 4.0),
        )
    ]
    figures = compare(rounds, (1, 16))
    assert [sentence(figure) for figure in figures] == [
        "throughput vs naive-aiohttp at 1 client: 2.00 [2.00, 2.00] (reported, no goal)",
        "throughput vs naive-aiohttp at 16 clients: 2.00 [2.00, 2.00] goal >= 1.8 reached",
        "p50 vs naive-aiohttp at 1 client: 1.60 [1.60, 1.60] goal <= 1.5 missed",
        "throughput vs naive-httpx at 1 client: 10.00 [10.00, 10.00] (reported, no goal)",
        "throughput vs naive-httpx at 16 clients: 10.00 [10.00, 10.00] (reported, no goal)",
        "p50 vs naive-httpx at 1 client: 0.40 [0.40, 0.40] (reported, no goal)",
        "throughput vs duet-plain at 1 client: 2.50 [2.50, 2.50] (reported, no goal)",
        "throughput vs duet-plain at 16 clients: 2.50 [2.50, 2.50] (reported, no goal)",
        "p50 vs duet-plain at 1 client: 1.00 [1.00, 1.00] (reported, no goal)",
    ]
    assert {figure.ratio.confidence for figure in figures} == {0.975}


@pytest.mark.parametrize(("many", "verdict"), [(150, "reached"), (130, "missed")])
def test_what_company_brings_is_the_conductor_against_itself_in_the_same_round(
    many: float, verdict: str
) -> None:
    rounds = [
        measurement(arm, clients, drift * (many if clients == 256 else 100))
        for drift in (1.0, 0.5, 2.0)
        for clients in (16, 256)
        for arm in (DUET, DUET_PLAIN, NAIVE_AIOHTTP, NAIVE_HTTPX)
    ]
    figures = compare(rounds, (16, 256))
    ratio = f"{many / 100:.2f}"
    told = (
        f"throughput vs duet at 16 clients, at 256 clients: {ratio} [{ratio}, {ratio}] goal >= 1.4 {verdict}"
    )
    assert sentence(figures[-1]) == told
    assert figures[-1].ratio.confidence == pytest.approx(0.975)


def test_a_spread_is_the_median_between_the_lowest_and_the_highest() -> None:
    found = spread([3.0, 1.0, 2.5])
    assert (found.median, found.low, found.high) == (2.5, 1.0, 3.0)
    assert found.told() == "2.50 [1.00, 3.00]"
    assert spread([1234.4]).told(0) == "1,234 [1,234, 1,234]"
    with pytest.raises(ValueError, match="nothing"):
        spread([])


def test_the_cost_curve_is_the_conductor_s_cpu_time_of_each_completed_order() -> None:
    rounds = [
        replace(measurement(arm, clients, 100), measured=completed)
        for arm in (DUET, NAIVE_AIOHTTP)
        for clients, counts in ((1, (100, 200)), (16, (400, 500)))
        for completed in counts
    ]
    costs = cost_curve(rounds, (DUET, NAIVE_AIOHTTP), (1, 16))
    assert [(cost.arm, cost.clients) for cost in costs] == [
        (arm, clients) for arm in (DUET, NAIVE_AIOHTTP) for clients in (1, 16)
    ]
    assert [cost.cpu_ms_per_order.told() for cost in costs[:2]] == ["7.50 [5.00, 10.00]", "2.25 [2.00, 2.50]"]


def test_foreign_processes_are_counted_but_not_beside_the_generator_s_ceiling() -> None:
    rounds = [measurement(DUET, 16, 100), measurement(CEILING, 16, 1000)]
    for each, others in zip(rounds, (0.25, 9.0), strict=True):
        each.cpu_s["others"] = others
    assert others_share(rounds) == 0.25


@pytest.mark.parametrize(("ceiling", "enough"), [(1000, True), (150, False)])
def test_a_generator_without_headroom_is_flagged(ceiling: float, enough: bool) -> None:
    rounds = [
        measurement(CEILING, 16, ceiling),
        measurement(DUET, 16, 80),
        measurement(NAIVE_AIOHTTP, 16, 100),
    ]
    each = headroom(rounds, 16)
    assert each.enough is enough
    assert ("bottleneck" in proof(each)) is not enough


async def test_the_stub_process_serves_until_its_parent_lets_go_of_it(tmp_path: Path) -> None:
    async with running("stub", "lab.bench.stub", env={}, log=tmp_path / "log", talks=True) as child:
        ports = await child.ask(b"", 20)
        await wait_ready(child, ports["rewards"])
        assert json.loads((await fetch(ports["email"], "/counts")).body) == {}
        assert child.process.stdin is not None
        child.process.stdin.close()
        assert await asyncio.wait_for(child.process.wait(), 10) == 0


async def test_a_child_that_ends_at_once_is_shown_with_its_log(tmp_path: Path) -> None:
    async with running("broken", "lab.no_such_module", env={}, log=tmp_path / "log") as child:
        with pytest.raises(BenchError, match=r"(?s)broken ended with exit code 1.*no_such_module"):
            await wait_ready(child, 1)


async def test_a_child_is_ended_when_the_bench_fails(tmp_path: Path) -> None:
    children: list[Child] = []

    async def fail() -> None:
        async with running("stub", "lab.bench.stub", env={}, log=tmp_path / "log", talks=True) as child:
            await child.ask(b"", 20)
            children.append(child)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert children[0].process.returncode is not None


def test_the_disk_is_measured_in_the_folder_that_is_given(tmp_path: Path) -> None:
    took = measure_fsync(tmp_path)
    assert 0 < took["p50"] <= took["p99"]
    assert not list(tmp_path.iterdir())


def test_numbers_of_clients_are_read_once_each() -> None:
    assert parse_clients("1,16,64,16") == (1, 16, 64)


@pytest.mark.parametrize("given", ["", "1,,2", "0", "513", "many"])
def test_numbers_of_clients_that_make_no_sense_are_refused(given: str) -> None:
    with pytest.raises(LabError, match="--clients"):
        parse_clients(given)


def test_the_bench_command_is_wired_and_explains_itself() -> None:
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    shown = CliRunner().invoke(app, ["bench", "conductor", "--help"])
    assert shown.exit_code == 0
    assert "--quick" in shown.output
    refused = CliRunner().invoke(app, ["bench", "conductor", "--clients", "none"])
    assert refused.exit_code == 2
