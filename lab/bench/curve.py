"""The cost curve of the styles bench: one window for each rate, style and round, on one whole system.

Rates go up in one round and down in the next, and the styles take turns, so that what drifts meets all alike.
It has no goals. An order that is turned away (503) at a rate that is too high is no trouble, and is told.
"""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from lab.bench.children import BenchError
from lab.bench.cost import Spread, spread
from lab.bench.open_loop import Load, open_loop
from lab.bench.setting import Setting, describe
from lab.bench.windows import Window
from lab.ledger import Report

CLOCK_FIGURES = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each round a window of every style at every rate, in orders a second."""

    rates: tuple[float, ...]
    styles: tuple[str, ...]
    rounds: int
    measured_s: float
    warm_up_s: float
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many windows that makes, with the final read."""
        return self.rounds * len(self.rates) * len(self.styles) + 1


@dataclass(frozen=True, slots=True)
class Point:
    """One style at one offered rate: the spread of its CPU ms for each completed order and of its completed
    rate, and the medians over the rounds of its latencies in ms, by their names.

    `turned_away` and `unfinished` are orders of all rounds.
    """

    style: str
    offered_rate: float
    cpu_ms: Spread
    completed_rate: Spread
    ack_ms: dict[str, float]
    completion_ms: dict[str, float]
    turned_away: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found; `windows` are in the order in which they were measured."""

    setting: Setting
    shape: Shape
    windows: list[Window]
    points: list[Point]
    ledger: Report

    @property
    def passed(self) -> bool:
        """Whether the ledger balances and no order met an error."""
        return self.ledger.balances and not any(window.errors for window in self.windows)


async def run(shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `out`, if given, gets each window's orders. Raises LabError."""
    setting = await asyncio.to_thread(describe, folder)
    own = folder / "curve"
    own.mkdir()
    advance("starting")
    async with open_loop(own, "null", shape.seed) as loop:
        for number in range(shape.rounds):
            for rate in shape.rates if number % 2 == 0 else shape.rates[::-1]:
                turn = number % len(shape.styles)
                for style in shape.styles[turn:] + shape.styles[:turn]:
                    advance(f"round {number + 1} of {shape.rounds}: {style}, {rate:g} orders a second")
                    load = Load(f"{rate:g}", rate, shape.warm_up_s, shape.measured_s)
                    await loop.measure(style, load, number)
        advance("reading the books")
        windows, _, ledger = await loop.reckon(out)
    shutil.rmtree(own)
    return Outcome(setting, shape, windows, cost_points(windows, shape), ledger)


def cost_points(windows: Sequence[Window], shape: Shape) -> list[Point]:
    """A point for each style and rate, rates rising. Raises BenchError where nothing was completed."""
    return [
        _point(style, rate, [w for w in windows if (w.style, w.offered_rate) == (style, rate)])
        for style in shape.styles
        for rate in sorted(shape.rates)
    ]


def _point(style: str, rate: float, rounds: Sequence[Window]) -> Point:
    if not all(window.cpu_ms and window.ack_ms and window.completion_ms for window in rounds):
        raise BenchError(f"{style} completed no order in a window at {rate:g} orders a second")
    acks, completions = [w.ack_ms for w in rounds], [w.completion_ms for w in rounds]
    return Point(
        style=style,
        offered_rate=rate,
        cpu_ms=spread(window.system_cpu_ms for window in rounds),
        completed_rate=spread(window.completed_rate for window in rounds),
        ack_ms={name: median(each[name] for each in acks) for name in CLOCK_FIGURES},
        completion_ms={name: median(each[name] for each in completions) for name in CLOCK_FIGURES},
        turned_away=sum(window.turned_away for window in rounds),
        unfinished=sum(window.unfinished for window in rounds),
    )
