"""Verdicts: what is called better is better, what is called equivalent is, and noise is neither.

On synthetic windows with log-normal noise from a seed. The noise of a ratio (the standard deviation of its
logarithm from round to round) is taken as 4.5 %: that is what a quiet machine is to give, and near the most
at which six rounds tell 20 % apart. It is an assumption; the live A/A run of `duet compare --full` shows what
a machine really gives.
"""

import json
import math
import random
from collections.abc import Callable, Sequence
from functools import cache

import pytest

from lab.bench import intervals
from lab.bench.intervals import Ratio, paired_ratio
from lab.compare.verdicts import EQUIVALENT, MARGIN, UNDECIDED, Figure, Kind, judge, smallest

QUIET, LOADED = 0.045, 0.9  # standard deviation of the log-ratio; the second is that of a machine in use
PAIRS, FIGURES, RUNS, SEED = 6, 7, 1000, 20
SHARED = 0.5  # of a window's variance is shared by all its figures: one bad window is bad in all of them
DRIFT = 0.2  # what hits both arms of a round alike

LATENCY = Kind("completion_p99", "completion latency, p99", "ms")
CAPACITY = Kind("capacity", "capacity within the objective", "orders/s", "higher")

Run = list[tuple[list[float], list[float]]]  # by figure: the values of a and of b, by round


@pytest.fixture(autouse=True)
def _quantiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of runs want the same few quantiles."""
    monkeypatch.setattr(intervals, "t_quantile", cache(intervals.t_quantile))


def synthetic_runs(noise: float, ratios: Sequence[float], runs: int = RUNS) -> list[Run]:
    """Runs of six rounds; the figures of b are really `ratios` times those of a."""
    chance = random.Random(SEED)
    of_a_window = noise / math.sqrt(2)  # a ratio has the noise of two windows

    def window(drift: float) -> list[float]:
        shared = chance.gauss(drift, of_a_window * math.sqrt(SHARED))
        return [math.exp(shared + chance.gauss(0, of_a_window * math.sqrt(1 - SHARED))) for _ in ratios]

    found = []
    for _ in range(runs):
        drifts = [chance.gauss(0, DRIFT) for _ in range(PAIRS)]
        rounds = [(window(drift), window(drift)) for drift in drifts]
        found.append(
            [
                ([a[at] for a, _ in rounds], [ratio * b[at] for _, b in rounds])
                for at, ratio in enumerate(ratios)
            ]
        )
    return found


def judged(run: Run) -> list[Figure]:
    return [judge(LATENCY, ("a", a), ("b", b), len(run)) for a, b in run]


def share(runs: Sequence[Run], holds: Callable[[Run], bool]) -> float:
    return sum(map(holds, runs)) / len(runs)


def calls_a_difference(run: Run) -> bool:
    return any(figure.verdict in ("a", "b") for figure in judged(run))


@pytest.mark.parametrize("noise", [QUIET, LOADED])
def test_a_against_a_calls_a_difference_in_at_most_one_run_of_twenty(noise: float) -> None:
    assert share(synthetic_runs(noise, [1.0] * FIGURES), calls_a_difference) <= 0.05


def test_a_difference_that_is_just_within_the_margin_is_called_one_in_at_most_one_run_of_twenty() -> None:
    assert share(synthetic_runs(QUIET, [MARGIN] * FIGURES), calls_a_difference) <= 0.05


def test_a_difference_just_beyond_the_margin_is_called_equivalent_in_at_most_one_run_of_twenty() -> None:
    quietest = 0.01  # or equivalence is hardly ever called at all
    runs = synthetic_runs(quietest, [MARGIN * 1.0001] * FIGURES)
    assert share(runs, lambda run: any(f.verdict == EQUIVALENT for f in judged(run))) <= 0.05


@pytest.mark.parametrize(("ratio", "right"), [(1.2, "a"), (1 / 1.2, "b")])
def test_a_true_fifth_is_found_in_nineteen_runs_of_twenty(ratio: float, right: str) -> None:
    verdicts = [judged(run)[0].verdict for run in synthetic_runs(QUIET, [ratio, *[1.0] * (FIGURES - 1)])]
    assert verdicts.count(right) >= 0.95 * RUNS
    assert set(verdicts) <= {right, UNDECIDED}


def test_equivalence_is_called_of_what_is_the_same_and_never_of_a_true_fifth() -> None:
    noise = 0.02
    same, apart = synthetic_runs(noise, [1.0], 200), synthetic_runs(noise, [1.2], 200)
    assert share(same, lambda run: judged(run)[0].verdict == EQUIVALENT) > 0.95
    assert share(apart, lambda run: judged(run)[0].verdict == EQUIVALENT) == 0


def test_without_correction_and_margin_the_same_runs_would_call_far_too_many() -> None:
    def naive(run: Run) -> bool:
        intervals = [paired_ratio(b, a, 0.95) for a, b in run]
        return any(each.low > 1 or each.high < 1 for each in intervals)

    assert share(synthetic_runs(QUIET, [1.0] * FIGURES), naive) > 0.15


def test_without_correction_a_difference_within_the_margin_would_be_called_too_often() -> None:
    def uncorrected(run: Run) -> bool:
        return any(judge(LATENCY, ("a", a), ("b", b), 1).verdict in ("a", "b") for a, b in run)

    assert share(synthetic_runs(QUIET, [MARGIN] * FIGURES), uncorrected) > 0.05


def test_the_correction_alone_keeps_what_it_promises() -> None:
    def without_margin(run: Run) -> bool:
        ratios = [figure.ratio for figure in judged(run)]
        return any(each is not None and not each.low <= 1 <= each.high for each in ratios)

    assert share(synthetic_runs(QUIET, [1.0] * FIGURES), without_margin) <= 0.05


def test_a_ratio_of_the_smallest_that_could_be_told_would_have_been_told() -> None:
    ratio = Ratio(1.0, 0.9, 1 / 0.9, PAIRS, 0.99)
    told = smallest(ratio)
    assert told * ratio.low == pytest.approx(MARGIN)
    assert told == pytest.approx(1.05 / 0.9)


def values(*told: float | None) -> list[float | None]:
    return list(told)


@pytest.mark.parametrize(
    ("b", "sentence"),
    [
        (values(130, 132, 131), "b has 1.31 [1.29, 1.34] times a's: a is better."),
        (values(75, 76, 77), "b has 0.76 [0.74, 0.79] times a's: b is better."),
        (values(100, 100.5, 101), "b has 1.00 [0.99, 1.02] times a's: equivalent, within 5%."),
        (
            values(90, 100, 110),
            "b has 1.00 [0.78, 1.28] times a's: undecided; this run could have told a ratio of 1.35 or more, "
            "or of 0.74 or less.",
        ),
        (
            values(20, 100, 500),
            "b has 1.00 [0.018, 54.49] times a's: undecided; this run could not even have told a "
            "ratio of 10.",
        ),
    ],
)
def test_a_figure_is_told_in_one_sentence(b: list[float | None], sentence: str) -> None:
    figure = judge(LATENCY, ("a", [100, 100, 100]), ("b", b), 1)
    assert figure.sentence == f"completion latency, p99: {sentence}"


def test_of_a_capacity_more_is_better() -> None:
    assert judge(CAPACITY, ("a", [100, 100, 100]), ("b", [130, 132, 131]), 1).verdict == "b"
    assert judge(CAPACITY, ("a", [100, 100, 100]), ("b", [75, 76, 77]), 1).verdict == "a"


@pytest.mark.parametrize(
    ("b", "why"),
    [
        (values(1, 0, 1), "b's is 0 in round 2, of which there is no ratio"),
        (values(1, -1, 1), "b's is -1 in round 2, of which there is no ratio"),
        (values(1, 1, math.inf), "b's is inf in round 3, of which there is no ratio"),
        (values(math.nan, 1, 1), "b has no such figure in round 1"),
        (values(1, 1, None), "b has no such figure in round 3"),
        (values(), "b was not measured"),
        (values(1, 1), "the arms have not the same rounds"),
    ],
)
def test_a_figure_without_a_ratio_in_some_round_is_not_judged(b: list[float | None], why: str) -> None:
    figure = judge(LATENCY, ("a", [1, 1, 1]), ("b", b), 1)
    assert (figure.verdict, figure.why) == (UNDECIDED, why)
    assert (figure.ratio, figure.smallest) == (None, None)
    assert figure.a_value == 1
    assert figure.b_value is None or why == "the arms have not the same rounds"
    assert figure.sentence == f"completion latency, p99: undecided, {why}."


def test_a_single_round_is_not_judged() -> None:
    figure = judge(LATENCY, ("a", [2.0]), ("b", [3.0]), 1)
    assert (figure.verdict, figure.why) == (UNDECIDED, "a single round shows no spread")
    assert (figure.a_value, figure.b_value) == pytest.approx((2, 3))


@pytest.mark.parametrize("wild", [1e60, 1e300])
def test_rounds_too_wild_for_an_interval_are_not_judged(wild: float) -> None:
    figure = judge(LATENCY, ("a", [1, 1]), ("b", [1 / wild, wild]), 28)
    assert (figure.verdict, figure.why) == (UNDECIDED, "its rounds are too far apart for an interval")


def test_a_figure_is_plain_json() -> None:
    told = json.loads(json.dumps(judge(LATENCY, ("a", [1, 1.1]), ("b", [2, 2.1]), 7).as_document()))
    assert told["slug"] == "completion_p99"
    assert told["ratio"]["pairs"] == 2
    assert told["ratio"]["confidence"] == pytest.approx(1 - 0.05 / 7)
    assert told["a_value"] == pytest.approx(math.sqrt(1.1))
    assert told["sentence"].startswith("completion latency, p99: b has 1.95 [")
