"""What paired runs of two arms say about one figure: one of four verdicts, with its interval. Pure.

A ratio counts as a difference only if its whole interval lies beyond five per cent, as equivalence only if
all of it lies within; everything else is undecided, and then it is said what difference could have been seen.
The pairs are rounds, never requests. It refuses to judge a figure that some round does not have.
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
    this run could have told from none. A figure that cannot be judged has no ratio, and `why` says so.
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
        low, high = (f"{bound:.2f}" for bound in (self.ratio.low, self.ratio.high))
        told = f"{self.kind.title}: {self.b} has {self.ratio.point:.2f} [{low}, {high}] times {self.a}'s"
        if self.verdict == UNDECIDED:
            return f"{told}: {UNDECIDED}; a ratio of {self.smallest:.2f} or more would have been seen."
        return f"{told}: {self.verdict if self.verdict == EQUIVALENT else f'better is {self.verdict}'}."

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


def judge(
    kind: Kind,
    a: tuple[str, Sequence[float | None]],
    b: tuple[str, Sequence[float | None]],
    figures: int,
) -> Figure:
    """Judge one of `figures` figures, whose verdicts are to be right together (95 %, Bonferroni).

    Each arm is its name and its figure in every round; None where a round has none.
    """
    (a_name, a_told), (b_name, b_told) = a, b
    a_values, b_values = _positive(a_told), _positive(b_told)
    a_mean, b_mean = (statistics.geometric_mean(v) if v else None for v in (a_values, b_values))
    if len(a_values) != len(a_told) or len(b_values) != len(b_told) or len(a_told) != len(b_told):
        return Figure(
            kind, a_name, b_name, a_mean, b_mean, None, UNDECIDED, None, "some round has no such figure"
        )
    if len(a_values) < 2:
        return Figure(
            kind, a_name, b_name, a_mean, b_mean, None, UNDECIDED, None, "one round shows no spread"
        )
    ratio = paired_ratio(b_values, a_values, each_of(figures))
    return Figure(
        kind, a_name, b_name, a_mean, b_mean, ratio, _verdict(kind, ratio, a_name, b_name), smallest(ratio)
    )


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


def _positive(told: Sequence[float | None]) -> list[float]:
    return [value for value in told if value is not None and value > 0 and math.isfinite(value)]
