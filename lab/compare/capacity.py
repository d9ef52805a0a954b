"""Capacity: the highest offered rate at which a window still meets the objective, found by search.

The rate is raised by a factor until a window fails, then the gap is halved on a log scale until it is small.
It refuses to find capacity by saturating: a rate that is not met tells only that the capacity is below it.
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lab.compare.arms import Arm
from lab.compare.rig import Load, Rig
from lab.compare.scenarios import Advance
from lab.compare.verdicts import Figure, Kind, judge
from lab.compare.windows import Window

KIND = Kind("capacity", "capacity within the objective", "orders/s", "higher")


@dataclass(frozen=True)
class Objective:
    """What a window must meet: p99 of completion at most so many ms, and not one order refused or missing.

    A generator that was late itself is in that p99, and cannot make a rate look better than it was.
    """

    completion_p99_ms: float = 500.0

    def why_missed(self, window: Window) -> str:
        """Why a window misses it; empty if it meets it."""
        if window.refused:
            return f"{window.refused} orders were not accepted"
        if window.broken:
            return window.broken
        if window.completion_ms["p99"] > self.completion_p99_ms:
            return f"p99 of completion was {window.completion_ms['p99']:.0f} ms"
        return ""


class Search:
    """Proposes rates and hears whether each was met. Pure; bounded by `most_steps`."""

    def __init__(self, start: float, factor: float, tolerance: float, most_steps: int) -> None:
        self._start = start
        self._factor = factor
        self._tolerance = tolerance
        self._left = most_steps
        self._met: float | None = None
        self._missed: float | None = None

    @property
    def capacity(self) -> float | None:
        """The highest rate that was met so far; None if none was."""
        return self._met

    def next_rate(self) -> float | None:
        """The rate to try next; None when the search is over."""
        if self._left <= 0:
            return None
        if self._met is None:
            return self._start if self._missed is None else self._missed / self._factor
        if self._missed is None:
            return self._met * self._factor
        return None if self._missed / self._met <= self._tolerance else math.sqrt(self._met * self._missed)

    def hear(self, rate: float, *, met: bool) -> None:
        """What came of a rate; one that is missed below one that was met (noise) lowers the ceiling only."""
        self._left -= 1
        if met:
            self._met = rate if self._met is None else max(self._met, rate)
        else:
            self._missed = rate if self._missed is None else min(self._missed, rate)


@dataclass(frozen=True)
class Shape:
    """How capacity is searched: rounds for each arm, the first rate, and how fine."""

    rounds: int = 6
    start: float = 200.0
    wide: float = 1.6
    narrow: float = 1.25
    tolerance: float = 1.08
    most_steps: int = 7
    warm_up_s: float = 1.0
    measured_s: float = 4.0
    objective: Objective = Objective()


@dataclass(frozen=True)
class Step:
    """One rate that was tried, and the window that it gave."""

    rate: float
    why_missed: str
    window: Window


@dataclass(frozen=True)
class Found:
    """One search: its arm, its round, the capacity (None if no rate met the objective), every step."""

    arm: str
    round: int
    capacity: float | None
    steps: Sequence[Step]


@dataclass(frozen=True)
class Capacity:
    """All searches, and the figure that they give."""

    shape: Shape
    searches: Sequence[Found]
    figure: Figure

    @property
    def troubles(self) -> list[str]:
        """Why it is not to be used, if it is not: no result, a wrong ledger, or the generator's own limit."""
        told = []
        for search in self.searches:
            where = f"capacity, {search.arm}, round {search.round}"
            missed = [step.rate for step in search.steps if step.why_missed]
            if search.capacity is None:
                told.append(f"{where}: no rate met the objective")
            elif not missed:
                told.append(f"{where}: no rate missed the objective, so this is a lower bound only")
            for step in search.steps:
                if not step.window.ledger.get("balances"):
                    told.append(f"{where}, {step.rate:.0f}/s: {step.window.broken}")
                elif step.why_missed and step.window.lateness:
                    told.append(f"{where}, {step.rate:.0f}/s: missed, but {step.window.lateness}")
        return told

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "objective": {**asdict(self.shape.objective), "errors": 0},
            "rounds": self.shape.rounds,
            "window_s": self.shape.measured_s,
            "tolerance": self.shape.tolerance,
            "searches": [
                {
                    "arm": found.arm,
                    "round": found.round,
                    "capacity_per_s": found.capacity,
                    "steps": [_step(step) for step in found.steps],
                }
                for found in self.searches
            ],
            "figure": self.figure.as_document(),
        }


async def measure_capacity(
    rig: Rig, arms: Sequence[Arm], shape: Shape, seed: int, advance: Advance
) -> Capacity:
    """Search the capacity of two arms, by turns, each search on a fresh system. Raises `LabError`."""
    found: list[Found] = []
    for number in range(shape.rounds):
        for arm in arms if number % 2 == 0 else list(reversed(arms)):
            advance(f"capacity, round {number + 1} of {shape.rounds}: {arm.name}")
            known = [each.capacity for each in found if each.arm == arm.name and each.capacity]
            start, factor = (statistics.median(known), shape.narrow) if known else (shape.start, shape.wide)
            start *= spread(shape, f"{seed}/{number}/{arm.name}")
            search = Search(start, factor, shape.tolerance, shape.most_steps)
            steps = await _search(rig, arm, search, shape, number, seed)
            found.append(Found(arm.name, number + 1, search.capacity, steps))
    a, b = (arm.name for arm in arms)
    values = {name: [each.capacity for each in found if each.arm == name] for name in (a, b)}
    return Capacity(shape, found, judge(KIND, (a, values[a]), (b, values[b]), 1))


def spread(shape: Shape, seed: str) -> float:
    """By how much a search begins higher than the last one ended: up to the tolerance, drawn from the seed.

    Else all searches would try the same few rates, and their interval would know nothing of the gaps between.
    """
    return float(shape.tolerance ** random.Random(seed).random())  # noqa: S311 - to be made again, not secret


async def _search(rig: Rig, arm: Arm, search: Search, shape: Shape, number: int, seed: int) -> list[Step]:
    steps: list[Step] = []
    async with rig.system(arm.settings, fresh=False, counts=False) as bench:
        while (rate := search.next_rate()) is not None:
            load = Load(rate, shape.warm_up_s, shape.measured_s)
            await bench.measure(arm, load, number + 1, seed + number)
            [(_, window)] = await bench.reckon()
            why = shape.objective.why_missed(window)
            steps.append(Step(rate, why, window))
            search.hear(rate, met=not why)
    return steps


def _step(step: Step) -> dict[str, Any]:
    window = step.window
    return {
        "rate": step.rate,
        "met": not step.why_missed,
        "why": step.why_missed,
        "completed_rate": window.completed_rate,
        "ack_p99_ms": window.ack_ms.get("p99"),
        "completion_p50_ms": window.completion_ms.get("p50"),
        "completion_p99_ms": window.completion_ms.get("p99"),
        "system_cpu_ms": window.system_cpu_ms,
        "turned_away": window.turned_away,
        "errors": window.errors,
        "balances": window.ledger.get("balances"),
        "generator_lag_p99_ms": window.generator_lag_ms.get("p99"),
        "ledger": window.ledger,
        "histograms": window.histograms,
    }
