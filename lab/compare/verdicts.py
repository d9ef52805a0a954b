"""What paired runs of two arms say about one figure: one of four verdicts, with its interval. Pure.

A ratio counts as a difference only if its whole interval lies beyond five per cent, as equivalence only if
all of it lies within; everything else is undecided, and then it is said what difference could have been seen.
The pairs are rounds, never requests. It refuses to judge a figure that some round does not have, or that is
not above zero there: dropping that round would make the rest look better than the run was.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lab.bench.intervals import Ratio, each_of, paired_ratio

MARGIN = 1.05
EQUIVALENT = "equivalent"
UNDECIDED = "undecided"
MOST_TOLD = 10.0  # beyond it, a smallest ratio says no more than that the run was of no use
WILD = 100.0  # beyond it, or below one over it, digits of a ratio say nothing


@dataclass(frozen=True, slots=True)
class Kind:
    """What is compared: `slug` for programs, `title` for people, and which way is good."""

    slug: str
    title: str
    unit: str
    better: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of two arms. `ratio` is b over a, and their values are geometric means over the rounds.

    `verdict` is the name of the better arm, `equivalent` or `undecided`; `smallest` is the least ratio that
    this run could have told from none. A figure that cannot be judged has no ratio, and `why` says so; an
    arm that lacks it somewhere has no value.
    """

    kind: Kind
    a: str
    b: str
    a_value: float | None
    b_value: float | None
    ratio: Ratio | None
    verdict: str
    smallest: float | None
    why: str = ""

    @property
    def sentence(self) -> str:
        """The figure in words."""
        if self.ratio is None:
            return f"{self.kind.title}: {UNDECIDED}, {self.why}."
        told = f"{self.kind.title}: {self.b} has {in_words(self.ratio)} times {self.a}'s"
        if self.verdict == UNDECIDED:
            return f"{told}: {UNDECIDED}; {self._power}."
        if self.verdict == EQUIVALENT:
            return f"{told}: {EQUIVALENT}, within {MARGIN - 1:.0%}."
        return f"{told}: {self.verdict} is better."

    @property
    def _power(self) -> str:
        if self.smallest is None or self.smallest >= MOST_TOLD:
            return f"this run could not even have told a ratio of {MOST_TOLD:.0f}"
        return (
            f"this run could have told a ratio of {self.smallest:.2f} or more, "
            f"or of {1 / self.smallest:.2f} or less"
        )

    def as_document(self) -> dict[str, Any]:
        """The figure as plain JSON values."""
        return {
            **asdict(self.kind),
            "a": self.a,
            "b": self.b,
            "a_value": self.a_value,
            "b_value": self.b_value,
            "ratio": None if self.ratio is None else asdict(self.ratio),
            "verdict": self.verdict,
            "smallest": self.smallest,
            "sentence": self.sentence,
        }


def in_words(ratio: Ratio) -> str:
    """A ratio with its interval: `1.31 [1.22, 1.41]`."""
    return f"{bound(ratio.point)} [{bound(ratio.low)}, {bound(ratio.high)}]"


def judge(
    kind: Kind,
    a: tuple[str, Sequence[float | None]],
    b: tuple[str, Sequence[float | None]],
    figures: int,
) -> Figure:
    """Judge one of `figures` figures, whose verdicts are to be right together (95 %, Bonferroni).

    Each arm is its name and its figure in every round; None where a round has none.
    """
    (a_name, a_values), (b_name, b_values) = a, b
    lacks = {name: _lack(name, values) for name, values in ((a_name, a_values), (b_name, b_values))}
    why = next((why for why in lacks.values() if why), "")
    if not why and len(a_values) != len(b_values):
        why = "the arms have not the same rounds"
    if not why and len(a_values) < 2:
        why = "a single round shows no spread"
    a_mean, b_mean = (
        None if lacks[name] else statistics.geometric_mean(_known(values))
        for name, values in ((a_name, a_values), (b_name, b_values))
    )
    if why:
        return Figure(kind, a_name, b_name, a_mean, b_mean, None, UNDECIDED, None, why)
    try:
        ratio = paired_ratio(_known(b_values), _known(a_values), each_of(figures))
        told = smallest(ratio)
    except (OverflowError, ZeroDivisionError):  # two wild rounds, many figures: no float holds the bounds
        told = math.inf
    if not math.isfinite(told):
        why = "its rounds are too far apart for an interval"
        return Figure(kind, a_name, b_name, a_mean, b_mean, None, UNDECIDED, None, why)
    return Figure(kind, a_name, b_name, a_mean, b_mean, ratio, _verdict(kind, ratio, a_name, b_name), told)


def bound(ratio: float) -> str:
    """A ratio, or a bound of one, for people: `1.31`, `0.021`, and `over 100` where digits say nothing."""
    if ratio > WILD:
        return f"over {WILD:g}"
    if ratio < 1 / WILD:
        return f"under {1 / WILD:g}"
    return f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}"


def smallest(ratio: Ratio) -> float:
    """The least ratio (over 1) that an interval as wide as this one could have told from none."""
    return MARGIN * math.sqrt(ratio.high / ratio.low)


def _verdict(kind: Kind, ratio: Ratio, a: str, b: str) -> str:
    if ratio.low > MARGIN:
        return a if kind.better == "lower" else b
    if ratio.high < 1 / MARGIN:
        return b if kind.better == "lower" else a
    if ratio.low > 1 / MARGIN and ratio.high < MARGIN:
        return EQUIVALENT
    return UNDECIDED


def _lack(arm: str, values: Sequence[float | None]) -> str:
    """Why this arm's values cannot be judged; empty if they can."""
    if not values:
        return f"{arm} was not measured"
    for number, value in enumerate(values, start=1):
        if value is None or math.isnan(value):
            return f"{arm} has no such figure in round {number}"
        if not 0 < value < math.inf:
            return f"{arm}'s is {value:g} in round {number}, of which there is no ratio"
    return ""


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
