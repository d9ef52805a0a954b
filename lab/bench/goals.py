"""The goals of the styles bench, each held against the worst window that was measured. Pure.

It refuses to judge a rate that was never offered: then the goal is neither met nor missed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.bench.windows import Alone, Window
from lab.system import Mail

ORCHESTRATION = "orchestration"
CHOREOGRAPHY = "choreography"
FULL = "full"
HALF = "half"

LEAST_RATE = {ORCHESTRATION: 900.0, CHOREOGRAPHY: 900.0}  # completed orders a second, with mail `null`
LONGEST_DRAIN_S = 10.0
LARGEST_P99_MS = 2000.0  # of completion, at half the full rate
LARGEST_LONE_P50_MS = 25.0
LARGEST_IDLE_MB = 500.0


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and its bound, with their unit; `met` is None where the rate was too low to tell."""

    name: str
    mail: Mail
    found: float
    kind: Literal["at_least", "below"]
    bound: float
    unit: str
    offered: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the figure is on the right side of its bound."""
        if not self.offered:
            return None
        return self.found >= self.bound if self.kind == "at_least" else self.found < self.bound


def judge(
    mail: Mail, windows: Sequence[Window], alone: Sequence[Alone], idle_mb: Mapping[str, float]
) -> list[Goal]:
    """The goals for one system: rates and latencies under load with mail `null` only, the others always."""
    goals = [
        Goal(f"{each.style}: a lone order's completion p50", mail, p50, "below", LARGEST_LONE_P50_MS, "ms")
        for each in alone
        if (p50 := each.completion_ms.get("p50")) is not None
    ]
    goals.append(
        Goal("the idle system's memory", mail, sum(idle_mb.values()), "below", LARGEST_IDLE_MB, "MB")
    )
    if mail == "null":
        for style in dict.fromkeys(window.style for window in windows):
            goals += _under_load(style, [window for window in windows if window.style == style])
    return goals


def _under_load(style: str, windows: Sequence[Window]) -> Iterator[Goal]:
    full = [window for window in windows if window.load == FULL]
    half = [window for window in windows if window.load == HALF]
    least = LEAST_RATE[style]
    offered = min(window.offered_rate for window in full) >= least
    rate = min(window.completed_rate for window in full)
    yield Goal(f"{style}: completed orders", "null", rate, "at_least", least, "/s", offered)
    drain_s = max(window.drain_s for window in full)
    yield Goal(
        f"{style}: time until the last is completed", "null", drain_s, "below", LONGEST_DRAIN_S, "s", offered
    )
    p99_ms = max(window.completion_ms.get("p99", float("inf")) for window in half)
    yield Goal(
        f"{style}: completion p99 at half the rate", "null", p99_ms, "below", LARGEST_P99_MS, "ms", offered
    )
