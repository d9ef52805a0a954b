"""Ratios of paired runs with a Student t interval, and what they say about a goal.

The pairs are rounds, never single requests: requests of one run are not independent of each other.
It refuses fewer than two pairs and figures that are not positive, for which a log-ratio says nothing.
No dependency is worth these forty lines, so the t quantile is computed here, for whole degrees of freedom.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["reached", "missed", "undecided"]

LARGEST_QUANTILE = 1e6  # beyond the 99.9999 % quantile at one degree of freedom
BISECTIONS = 80  # halves 1e6 to below a double's resolution


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio's geometric mean over `pairs` rounds, and the bounds of its interval at `confidence`."""

    point: float
    low: float
    high: float
    pairs: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a ratio: `at_least` is a lower bound, `at_most` an upper one."""

    kind: Literal["at_least", "at_most"]
    bound: float


def t_between(t: float, degrees: int) -> float:
    """The probability that Student's t with `degrees` (whole, >= 1) lies between -t and t.

    Finite series: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if degrees < 1:
        raise ValueError("Student's t wants at least one degree of freedom")
    angle = math.atan(t / math.sqrt(degrees))
    if degrees == 1:
        return 2 * angle / math.pi
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def t_quantile(confidence: float, degrees: int) -> float:
    """The t for which `t_between(t, degrees)` is `confidence` (between 0 and 1)."""
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies between 0 and 1")
    low, high = 0.0, LARGEST_QUANTILE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if t_between(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float], confidence: float) -> Ratio:
    """The ratio of figures measured side by side, one of each a round, with its t interval.

    Raises ValueError for fewer than two pairs, unequal lengths, or a figure that is not positive.
    """
    if len(numerators) != len(denominators) or len(numerators) < 2:
        raise ValueError("a paired ratio wants at least two pairs")
    if min(*numerators, *denominators) <= 0:
        raise ValueError("a paired ratio wants positive figures")
    logs = [math.log(a / b) for a, b in zip(numerators, denominators, strict=True)]
    centre = statistics.fmean(logs)
    spread = statistics.stdev(logs) / math.sqrt(len(logs))
    half = t_quantile(confidence, len(logs) - 1) * spread
    return Ratio(math.exp(centre), math.exp(centre - half), math.exp(centre + half), len(logs), confidence)


def each_of(figures: int, family_confidence: float = 0.95) -> float:
    """The confidence that each of `figures` intervals needs for all to hold together (Bonferroni)."""
    return 1 - (1 - family_confidence) / max(figures, 1)


def judge(ratio: Ratio, goal: Goal) -> Verdict:
    """A goal is reached, or missed, only if the whole interval lies on that side of it."""
    good, bad = (ratio.low, ratio.high) if goal.kind == "at_least" else (-ratio.high, -ratio.low)
    bound = goal.bound if goal.kind == "at_least" else -goal.bound
    if good >= bound:
        return "reached"
    return "missed" if bad < bound else "undecided"


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of an ascending list: the least value that `share` (0 to 1) don't exceed.

    Raises ValueError for an empty list.
    """
    if not ordered:
        raise ValueError("no percentile of nothing")
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def quantiles(figures: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and max; empty for nothing."""
    ordered = sorted(figures)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: percentile(ordered, share) for name, share in shares.items()} if ordered else {}
