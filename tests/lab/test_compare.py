"""`duet compare`: windows that take turns, figures, searches, ablations, claims, and the command."""

import io
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from rich.console import Console
from typer.testing import CliRunner

from lab.bench.orders import Origin
from lab.bench.setting import Setting
from lab.cli import app
from lab.compare import claims, shapes, view
from lab.compare.ablations import ABLATIONS, AS_IT_IS, BUSY, WITHOUT, count, measure_ablations
from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm, both_styles, target_arm
from lab.compare.capacity import Objective, Search, measure_capacity
from lab.compare.capacity import Shape as CapacityShape
from lab.compare.comparison import Comparison
from lab.compare.comparison import run as compare
from lab.compare.rig import Load
from lab.compare.scenarios import Measured, Scenario, figures_of, measure
from lab.compare.shapes import Asked
from lab.compare.simulated import parse_errors, parse_times, simulated
from lab.compare.windows import Window
from lab.errors import LabError
from lab.targets import EffectsAt, Target
from tests.support.compare_schema import COMPARE
from tests.support.planted import FakeRig, window

LOAD = Load(100.0, 1.0, 4.0)
SERVICES = frozenset({"email", "warehouse", "rewards"})
NOISE = (1.00, 1.01, 0.99, 1.005, 0.995, 1.0)


def scenario(arms: list[Arm], rounds: int, *, fresh: bool) -> Scenario:
    return Scenario("bare", "Bare", "as they are", arms, LOAD, rounds, fresh=fresh)


def steady(arm: Arm, load: Load, number: int) -> Window:
    """Choreography takes twice as long, and every round differs a little."""
    took = 20.0 if arm.style == CHOREOGRAPHY else 10.0
    return window(arm.name, number, took * NOISE[number % len(NOISE)])


def told(figures: list[Any]) -> dict[str, str]:
    return {figure.kind.slug: figure.verdict for figure in figures}


async def test_arms_take_turns_and_the_order_rotates_on_one_system() -> None:
    rig = FakeRig(steady)
    announced: list[str] = []
    await measure(rig, scenario(both_styles(), 3, fresh=False), 20, announced.append)
    assert rig.log == [
        "start as it is",
        "orchestration 1 seed 20 at 100",
        "choreography 1 seed 20 at 100",
        "choreography 2 seed 21 at 100",
        "orchestration 2 seed 21 at 100",
        "orchestration 3 seed 22 at 100",
        "choreography 3 seed 22 at 100",
        "end",
    ]
    assert len(announced) == 6
    assert announced[3] == "bare, round 2 of 3: orchestration"


async def test_a_fresh_system_serves_one_window() -> None:
    rig = FakeRig(steady)
    await measure(rig, scenario(both_styles(), 2, fresh=True), 20, lambda _: None)
    turns = (ORCHESTRATION, CHOREOGRAPHY, CHOREOGRAPHY, ORCHESTRATION)
    served = [line.split()[0] for line in rig.log]
    assert served == [word for style in turns for word in ("start", style, "end")]


async def test_arms_under_other_settings_have_a_system_each() -> None:
    arms = [Arm("as it is", ORCHESTRATION), Arm("without", ORCHESTRATION, {"CHECKOUT_HTTP_POOL": "httpx"})]
    rig = FakeRig(steady)
    await measure(rig, scenario(arms, 2, fresh=False), 20, lambda _: None)
    assert rig.log[:2] == ["start as it is", "start CHECKOUT_HTTP_POOL"]


async def test_a_difference_that_is_there_is_named() -> None:
    found = await measure(FakeRig(steady), scenario(both_styles(), 6, fresh=False), 20, lambda _: None)
    verdicts = told(list(found.figures))
    assert (verdicts["completion_p50"], verdicts["completion_p99"]) == (ORCHESTRATION, ORCHESTRATION)
    assert verdicts["ack_p50"] == "equivalent"
    assert found.troubles == []


def test_every_two_arms_are_compared_in_what_both_have() -> None:
    target = Target(
        "ours", Origin("127.0.0.1", 1), "", "", {"email": EffectsAt("http://127.0.0.1:1", "", False)}
    )
    arms = [*both_styles(), target_arm(target)]
    windows = [
        replace(window(arm.name, number, 10.0), cpu_ms={} if arm.target else {"checkout": 9.0 + number / 10})
        for arm in arms
        for number in range(1, 7)
    ]
    figures = figures_of(arms, windows)
    pairs = {(figure.a, figure.b) for figure in figures}
    assert pairs == set(itertools.combinations([ORCHESTRATION, CHOREOGRAPHY, "ours"], 2))
    assert [(figure.a, figure.b) for figure in figures if figure.kind.slug == "cpu"] == [
        (ORCHESTRATION, CHOREOGRAPHY)
    ]
    assert "memory" not in told(figures)


def test_the_figures_of_a_scenario_are_corrected_together() -> None:
    windows = [window(style, n, 10.0) for style in (ORCHESTRATION, CHOREOGRAPHY) for n in range(1, 7)]
    figures = figures_of(both_styles(), windows)
    assert {round(figure.ratio.confidence, 6) for figure in figures if figure.ratio} == {
        1 - 0.05 / len(figures)
    }


async def test_a_bad_window_is_named_and_fails_the_run() -> None:
    def lossy(arm: Arm, load: Load, number: int) -> Window:
        fine = steady(arm, load, number)
        bad = arm.name == CHOREOGRAPHY and number == 2
        return replace(fine, ledger={"balances": False, "lost": 1}) if bad else fine

    found = await measure(FakeRig(lossy), scenario(both_styles(), 3, fresh=False), 20, lambda _: None)
    assert found.troubles == ["bare, choreography, round 2: its ledger does not balance (1 lost)"]
    run = comparison([found])
    assert (run.balanced, run.as_document()["passed"]) == (False, False)


def comparison(scenarios: list[Measured], **more: Any) -> Comparison:
    asked = Asked({}, {})
    setting = Setting(
        2, "a processor", "Linux", 0.1, "ext4", {"p50": 0.2, "p99": 0.4}, "3", "3", {}, None, None
    )
    return Comparison(shapes.quick(asked), setting, 20, "duet compare", scenarios, **more)


async def test_what_breaks_off_late_keeps_what_was_found_before_and_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = itertools.count()

    def dies(arm: Arm, load: Load, number: int) -> Window:
        if next(windows) == 5:
            raise LabError("the warehouse died")
        return steady(arm, load, number)

    @asynccontextmanager
    async def fake(_: Path) -> AsyncIterator[FakeRig]:
        yield FakeRig(dies)

    monkeypatch.setattr("lab.compare.comparison.rig", fake)
    twice = [scenario(both_styles(), 2, fresh=True), scenario(both_styles(), 2, fresh=True)]
    shape = replace(shapes.quick(Asked({}, {})), scenarios=twice)
    run = await compare(shape, tmp_path, 20, "duet compare", tmp_path, lambda _: None)
    assert run.troubles == ["the run broke off: the warehouse died"]
    assert len(run.scenarios) == 1
    assert run.as_document()["passed"] is False
    windows = itertools.count(5)
    kept = sorted(file.name for file in (tmp_path / "rows").iterdir())
    with pytest.raises(LabError, match="the warehouse died"):
        await compare(shape, tmp_path, 20, "duet compare", tmp_path, lambda _: None)
    assert sorted(file.name for file in (tmp_path / "rows").iterdir()) == kept != []


async def test_refused_orders_spoil_a_window_but_where_they_are_what_it_is_about() -> None:
    def refusing(arm: Arm, load: Load, number: int) -> Window:
        return replace(steady(arm, load, number), turned_away=1)

    told = scenario(both_styles(), 2, fresh=False)
    spoiled = await measure(FakeRig(refusing), told, 20, lambda _: None)
    assert len(spoiled.troubles) == 4
    about = await measure(FakeRig(refusing), replace(told, about_refusals=True), 20, lambda _: None)
    assert about.troubles == []


async def test_a_search_that_the_generator_was_too_late_for_is_no_capacity() -> None:
    def late(arm: Arm, load: Load, number: int) -> Window:
        if load.rate <= 300:
            return steady(arm, load, number)
        return replace(steady(arm, load, number), turned_away=1, generator_lag_ms={"p99": 50.0})

    found = await measure_capacity(FakeRig(late), both_styles(), CapacityShape(rounds=2), 20, lambda _: None)
    assert found.troubles
    assert all("its generator was 50.0 ms late at p99" in trouble for trouble in found.troubles)


def found(search: Search, capacity: float) -> list[float]:
    tried = []
    while (rate := search.next_rate()) is not None:
        tried.append(rate)
        search.hear(rate, met=rate <= capacity)
    return tried


@pytest.mark.parametrize("capacity", [37.0, 150.0, 200.0, 260.0, 431.0])
def test_a_search_ends_close_below_the_capacity(capacity: float) -> None:
    search = Search(200.0, 1.6, 1.08, 12)
    tried = found(search, capacity)
    assert search.capacity is not None
    assert capacity / 1.08 <= search.capacity <= capacity
    assert len(tried) <= 12


def test_a_search_is_bounded_where_nothing_is_ever_met() -> None:
    search = Search(200.0, 1.6, 1.08, 7)
    assert len(found(search, 0.0)) == 7
    assert search.capacity is None


def test_noise_below_a_rate_that_was_met_ends_a_search() -> None:
    search = Search(200.0, 1.6, 1.08, 7)
    search.hear(200.0, met=True)
    search.hear(190.0, met=False)
    assert (search.next_rate(), search.capacity) == (None, 200.0)


def overloaded_above(capacity: dict[str, float]) -> Callable[[Arm, Load, int], Window]:
    def answer(arm: Arm, load: Load, number: int) -> Window:
        took_ms = 50.0 if load.rate <= capacity[arm.name] else 900.0
        return window(arm.name, number, took_ms)

    return answer


async def test_the_capacities_of_two_styles_are_found_and_judged() -> None:
    rig = FakeRig(overloaded_above({ORCHESTRATION: 400.0, CHOREOGRAPHY: 250.0}))
    announced: list[str] = []
    shape = CapacityShape(rounds=6)
    found = await measure_capacity(rig, both_styles(), shape, 20, announced.append)
    assert found.figure.verdict == ORCHESTRATION
    assert found.figure.ratio is not None
    assert found.figure.ratio.point == pytest.approx(250 / 400, rel=0.08)
    assert found.troubles == []
    assert len(announced) == 12
    document = found.as_document()
    assert all(search["capacity_per_s"] <= 400 for search in document["searches"])
    missed = [step for search in document["searches"] for step in search["steps"] if not step["met"]]
    assert missed[0]["why"] == "p99 of completion was 900 ms"


async def test_a_style_whose_capacity_is_not_found_fails_the_run() -> None:
    rig = FakeRig(overloaded_above({ORCHESTRATION: 400.0, CHOREOGRAPHY: 0.0}))
    found = await measure_capacity(rig, both_styles(), CapacityShape(rounds=2), 20, lambda _: None)
    assert found.figure.verdict == "undecided"
    assert found.troubles[0] == "capacity, choreography, round 1: no rate met the objective"


async def test_a_capacity_that_nothing_exceeded_is_said_to_be_a_lower_bound() -> None:
    rig = FakeRig(overloaded_above({ORCHESTRATION: 1e9, CHOREOGRAPHY: 250.0}))
    found = await measure_capacity(rig, both_styles(), CapacityShape(rounds=2), 20, lambda _: None)
    told = "no rate missed the objective, so this is a lower bound only"
    assert found.troubles == [f"capacity, orchestration, round {number}: {told}" for number in (1, 2)]


async def test_searches_try_other_rates_each_so_that_their_spread_knows_of_the_gaps_between() -> None:
    rig = FakeRig(overloaded_above({ORCHESTRATION: 338.0, CHOREOGRAPHY: 340.0}))
    found = await measure_capacity(rig, both_styles(), CapacityShape(rounds=6), 20, lambda _: None)
    ends = [each.capacity for each in found.searches]
    assert len(set(ends)) == len(ends)
    assert found.figure.verdict not in (ORCHESTRATION, CHOREOGRAPHY)


def test_an_order_that_was_turned_away_misses_the_objective() -> None:
    assert (
        Objective().why_missed(replace(window("a", 1, 10.0), turned_away=2)) == "2 orders were not accepted"
    )
    assert Objective().why_missed(window("a", 1, 10.0)) == ""


async def test_each_ablation_is_measured_as_it_is_and_without_under_what_was_asked_for() -> None:
    def cheaper(arm: Arm, load: Load, number: int) -> Window:
        cost = 10.0 if arm.name == AS_IT_IS else 7.0
        return window(arm.name, number, cost * NOISE[number % len(NOISE)], cpu_ms=cost * NOISE[number % 5])

    rig = FakeRig(cheaper)
    asked = {"EMAIL_SIMULATE_TIME": "constant:10ms"}
    ablated = [each async for each in measure_ablations(rig, LOAD, 6, 20, lambda _: None, asked)]
    assert len(ablated) == count()
    starts = [line for line in rig.log if line.startswith("start")]
    assert len(starts) == 2 * count()
    assert all("EMAIL_SIMULATE_TIME" in line for line in starts)
    assert {line.split(",")[-1] for line in starts} >= {"CHECKOUT_TIMELINE", "DUET_BROKER_SYNC"}
    assert told(list(ablated[0].figures))["cpu"] == WITHOUT
    assert ablated[0].as_document()["settings"] == dict(ABLATIONS[0].settings)
    # What does something under load only is priced under load.
    rates = {each.ablation.name: each.as_document()["rate"] for each in ablated}
    assert (rates["durability"], rates["natural-batching"], rates["riding"]) == (LOAD.rate, BUSY, BUSY)


def measured_as(name: str, arms: list[Arm], made: Callable[[Arm, int], Window]) -> Measured:
    windows = [made(arm, number) for arm in arms for number in range(1, 7)]
    return Measured(replace(scenario(arms, 6, fresh=True), name=name), windows, figures_of(arms, windows))


async def test_claims_are_held_against_what_was_measured() -> None:
    def noisy(arm: Arm, number: int, ours: float, theirs: float, ack_ms: float = 5.0) -> Window:
        noise = NOISE[number % len(NOISE)]
        took = ours if arm.style == ORCHESTRATION else theirs
        return window(arm.name, number, took * noise, ack_ms=ack_ms * noise)

    [unequal] = [each.arms for each in claims.scenarios(LOAD, 6) if each.name == claims.UNEQUAL]
    both = both_styles()
    found = {
        name: measured_as(name, both, lambda arm, n, theirs=theirs: noisy(arm, n, 10, theirs))
        for name, theirs in ((claims.ONE_WORKER, 15), (claims.THREE_WORKERS, 10))
    }
    found[claims.ERRORS] = measured_as(
        claims.ERRORS,
        both,
        lambda arm, n: replace(noisy(arm, n, 10, 20), handed_in=20 if arm.style == ORCHESTRATION else 0),
    )
    found[claims.UNEQUAL] = measured_as(
        claims.UNEQUAL, list(unequal), lambda arm, n: noisy(arm, n, 100, 100, 100 if arm is unequal[0] else 2)
    )
    rig = FakeRig(overloaded_above({ORCHESTRATION: 400.0, CHOREOGRAPHY: 250.0}))
    capacity = await measure_capacity(rig, both_styles(), CapacityShape(rounds=6), 20, lambda _: None)
    bare = measured_as("bare", both_styles(), lambda arm, n: noisy(arm, n, 10, 20))
    gagnidze, kyriakakis, p95 = claims.judge_claims(bare, bare, capacity, found)
    assert (gagnidze.holds, kyriakakis.holds, p95.holds) == ("partly", "yes", "partly")
    assert "no finished order: 120 orchestrated, 0 choreographed" in gagnidze.found
    assert "has 0.020 [" in p95.found


@pytest.mark.parametrize(
    ("theirs", "ack_ms", "holds"),
    [(2.0, 2.0, "yes"), (80.0, 2.0, "partly"), (80.0, 60.0, "no")],
    ids=["on equal terms too", "for a 202 only", "not even then"],
)
async def test_a_better_p95_holds_only_where_both_are_asked_for_the_same(
    theirs: float, ack_ms: float, holds: str
) -> None:
    def noisy(arm: Arm, number: int, ours: float, others: float) -> Window:
        noise = NOISE[number % len(NOISE)]
        took = (ours if arm.style == ORCHESTRATION else others) * noise
        return window(arm.name, number, took, ack_ms=took)

    [unequal] = [each.arms for each in claims.scenarios(LOAD, 6) if each.name == claims.UNEQUAL]
    rig = FakeRig(overloaded_above({ORCHESTRATION: 400.0, CHOREOGRAPHY: 250.0}))
    capacity = await measure_capacity(rig, both_styles(), CapacityShape(rounds=2), 20, lambda _: None)
    equal = measured_as("bare", both_styles(), lambda arm, n: noisy(arm, n, 100, theirs))
    extra = dict.fromkeys((claims.ERRORS, claims.ONE_WORKER, claims.THREE_WORKERS), equal)
    extra[claims.UNEQUAL] = measured_as(claims.UNEQUAL, list(unequal), lambda a, n: noisy(a, n, 100, ack_ms))
    assert claims.judge_claims(equal, equal, capacity, extra)[2].holds == holds


@pytest.mark.parametrize(
    ("one", "three", "holds"),
    [
        (15, 10, "yes"),
        (15, 20, "partly"),
        (10.8, 20, "no"),
        (10.8, 10, "partly"),
        (9, 20, "no"),
    ],
    ids=["as claimed", "never equal", "hardly slower", "equal alone", "faster"],
)
async def test_slower_at_one_worker_means_by_the_claimed_share(one: float, three: float, holds: str) -> None:
    def told(theirs: float) -> Measured:
        def made(arm: Arm, number: int) -> Window:
            took = 10 if arm.style == ORCHESTRATION else theirs
            return window(arm.name, number, took * NOISE[number % len(NOISE)])

        return measured_as("workers", both_styles(), made)

    assert claims.judge_workers(told(one), told(three)).holds == holds


def test_what_is_simulated_is_read_as_people_write_it_and_told_as_settings() -> None:
    times = parse_times("email=lognormal:80ms,warehouse=constant:5ms", SERVICES)
    errors = parse_errors("warehouse=1%", SERVICES)
    assert simulated(times, errors) == {
        "EMAIL_SIMULATE_TIME": "lognormal:80ms",
        "WAREHOUSE_SIMULATE_TIME": "constant:5ms",
        "WAREHOUSE_SIMULATE_ERRORS": "1%",
    }
    assert simulated({}, {}) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--service-time", "email=80ms"], "email=lognormal:80ms"),
        (["--service-time", "post=constant:5ms"], "there is no service post"),
        (["--service-time", "email=constant:5ms,email=constant:6ms"], "each service once"),
        (["--error-rate", "warehouse=1"], "warehouse=1%"),
        (["--quick", "--full"], "give one of them"),
        (["--decision"], "give --out DIR"),
        (["--target", "ours"], "NAME=FILE.toml"),
        (["--target", "ours=TARGET", "--error-rate", "email=1%"], "a target simulates nothing"),
    ],
)
def test_a_command_that_makes_no_sense_says_what_to_do(
    tmp_path: Path, options: list[str], words: str
) -> None:
    target = tmp_path / "ours.toml"
    target.write_text(
        'checkout = "http://127.0.0.1:1"\n[effects.email]\nurl = "http://127.0.0.1:2/effects"\n'
    )
    told = [option.replace("TARGET", str(target)) for option in options]
    result = CliRunner().invoke(app, ["compare", *told])
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert words in result.output


def test_a_quick_look_has_eight_pairs_on_one_system_and_takes_under_three_minutes() -> None:
    shape = shapes.quick(Asked({}, {}))
    [only] = shape.scenarios
    assert (only.name, only.rounds, only.fresh) == ("bare", 8, False)
    assert len(shape.expected_s) == only.steps
    assert sum(shape.expected_s) < 150


def test_a_full_run_measures_everything_and_is_expected_to_take_under_forty_minutes() -> None:
    shape = shapes.full(Asked({}, {}))
    assert [each.name for each in shape.scenarios] == ["bare", "service-times"]
    assert all(each.fresh and each.rounds >= 6 for each in shape.scenarios)
    assert shape.aa is not None
    assert shape.aa.name == "aa"
    assert len(shape.extra) == 4
    assert sum(shape.expected_s) < 38 * 60


def test_what_was_asked_for_takes_the_place_of_bare_services_everywhere() -> None:
    shape = shapes.full(Asked({"email": "constant:5ms"}, {"warehouse": "1%"}))
    settings = {"EMAIL_SIMULATE_TIME": "constant:5ms", "WAREHOUSE_SIMULATE_ERRORS": "1%"}
    [only] = shape.scenarios
    assert (only.name, only.what) == (
        "as asked",
        "email takes constant:5ms, warehouse fails 1% of its tries",
    )
    assert (only.service_time, only.error_rate) == ({"email": "constant:5ms"}, {"warehouse": "1%"})
    assert [arm.settings for arm in only.arms] == [settings, settings]
    assert shape.aa is not None
    assert [arm.settings for arm in shape.aa.arms] == [settings, settings]
    assert shape.settings == settings
    assert shape.extra == []  # claims are judged on services as they are


async def test_everything_that_a_full_run_finds_is_in_the_document() -> None:
    one = await measure(FakeRig(steady), scenario(both_styles(), 2, fresh=True), 20, lambda _: None)
    rig = FakeRig(overloaded_above({ORCHESTRATION: 400.0, CHOREOGRAPHY: 250.0}))
    capacity = await measure_capacity(rig, both_styles(), CapacityShape(rounds=2), 20, lambda _: None)
    ablated = [each async for each in measure_ablations(FakeRig(steady), LOAD, 2, 20, lambda _: None)]
    claim = claims.Claim("a name", "a source", "a claim", "what was found", "no", "ack", "because")
    full = comparison([one], aa=one, capacity=capacity, extra=[one], ablations=ablated, claims=[claim])
    document = json.loads(json.dumps(full.as_document()))
    jsonschema.validate(document, COMPARE)
    assert (document["passed"], document["balanced"], document["troubles"]) == (True, True, [])


async def test_a_person_is_shown_verdicts_before_the_table_and_what_to_doubt() -> None:
    measured = await measure(FakeRig(steady), scenario(both_styles(), 2, fresh=False), 20, lambda _: None)
    out = io.StringIO()
    view.show(comparison([measured]), Console(file=out, width=200))
    shown = out.getvalue()
    assert "one system for all windows" in shown
    assert shown.index("choreography has") < shown.index("accepted")
    assert "every ledger balances" in shown
    assert "2 pairs are a look, not a verdict" in shown


def test_an_out_folder_that_cannot_be_made_is_an_error_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["compare", "--out", str(tmp_path / "file" / "out")])
    assert result.exit_code == 2
    assert "cannot use" in result.output


def test_two_arms_of_one_name_are_refused(tmp_path: Path) -> None:
    from lab.compare.command import run

    twin = Target(ORCHESTRATION, Origin("127.0.0.1", 1), "", "", {})
    with pytest.raises(LabError, match="one name"):
        run(
            Asked({}, {}, [twin]),
            full=False,
            seed=20,
            folder=tmp_path,
            out=None,
            decision=False,
            as_json=True,
        )
