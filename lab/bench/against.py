"""This tree's whole system against that of another revision, both running, in windows that are interleaved.

A pair is a window of each at the same rate with the same orders; pairs go A B, B A, A B, so that what drifts
meets both alike, and so do the two styles, which take turns. The other revision runs all of its own code, on
our dependencies. It refuses to judge by speed alone: the ledgers of both systems must balance.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.bench.children import BenchError
from lab.bench.intervals import Goal, Ratio, Verdict, each_of, judge, paired_ratio
from lab.bench.open_loop import Load, OpenLoop, open_loop
from lab.bench.revision import check_out, find_commit
from lab.bench.setting import Setting, describe
from lab.bench.windows import Window
from lab.ledger import Report

OURS, THEIRS = "this-tree", "that-revision"
CHEAPER = Goal("at_most", 0.6)  # CPU time for each completed order


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: `pairs` pairs of windows of each style, at its rate in orders a second.

    `judged` is whether the goal is held against what is found.
    """

    revision: str
    rates: Mapping[str, float]
    pairs: int
    measured_s: float
    warm_up_s: float
    judged: bool
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many windows that makes, with the final read."""
        return self.pairs * len(self.rates) * 2 + 1


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two systems: its windows in the order in which they were measured, and its ledger."""

    name: str
    windows: list[Window]
    ledger: Report

    @property
    def sound(self) -> bool:
        """Whether its ledger balances and no order met an error."""
        return self.ledger.balances and not any(window.errors for window in self.windows)


@dataclass(frozen=True, slots=True)
class Figure:
    """The CPU time of an order here over that there, and its verdict if the run is judged."""

    style: str
    ratio: Ratio
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found; `commit` is what the other revision meant."""

    setting: Setting
    shape: Shape
    commit: str
    sides: list[Side]
    figures: list[Figure]

    @property
    def passed(self) -> bool:
        """Whether both systems did what was asked of them, and every goal that is judged is reached."""
        reached = all(figure.verdict in (None, "reached") for figure in self.figures)
        return reached and all(side.sound for side in self.sides)


async def run(shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `out`, if given, gets each window's orders. Raises LabError."""
    commit = await asyncio.to_thread(find_commit, shape.revision)
    setting = await asyncio.to_thread(describe, folder)
    advance("starting both systems")
    tree = await asyncio.to_thread(check_out, commit, folder / "tree")
    async with AsyncExitStack() as stack:
        loops: dict[str, OpenLoop] = {}
        for name, root in ((OURS, None), (THEIRS, tree)):
            own = folder / name
            own.mkdir()
            loops[name] = await stack.enter_async_context(open_loop(own, "null", shape.seed, root))
        for style, name, number in plan_windows(list(shape.rates), shape.pairs):
            advance(f"pair {number + 1} of {shape.pairs}: {style}, {name}")
            load = Load("full", shape.rates[style], shape.warm_up_s, shape.measured_s)
            await loops[name].measure(style, load, number)
        advance("reading the books")
        sides = [await _side(name, loop, out) for name, loop in loops.items()]
    for name in (*loops, "tree"):
        shutil.rmtree(folder / name)
    figures = compare(sides[0].windows, sides[1].windows, list(shape.rates), judged=shape.judged)
    return Outcome(setting, shape, commit, sides, figures)


def plan_windows(styles: Sequence[str], pairs: int) -> list[tuple[str, str, int]]:
    """Style, side and pair (from 0) of each window: the styles take turns, each style's sides go A B B A."""
    plan = []
    for number in range(pairs):
        turn = number % len(styles)
        for style in (*styles[turn:], *styles[:turn]):
            sides = (OURS, THEIRS) if number % 2 == 0 else (THEIRS, OURS)
            plan += [(style, side, number) for side in sides]
    return plan


async def _side(name: str, loop: OpenLoop, out: Path | None) -> Side:
    own = None if out is None else out / name
    if own is not None:
        await asyncio.to_thread(own.mkdir, exist_ok=True)
    windows, _, ledger = await loop.reckon(own)
    return Side(name, windows, ledger)


def compare(
    ours: Sequence[Window], theirs: Sequence[Window], styles: Sequence[str], *, judged: bool
) -> list[Figure]:
    """The ratio by style of the CPU time of a completed order, paired; the intervals hold together at 95 %.

    Raises BenchError where a window completed nothing.
    """
    confidence = each_of(len(styles))
    figures = []
    for style in styles:
        here, there = ([w for w in side if w.style == style] for side in (ours, theirs))
        if not all(w.cpu_ms and w.ack_ms and w.completion_ms for w in (*here, *there)):
            raise BenchError(f"a window of {style} completed no order")
        ratio = paired_ratio([w.system_cpu_ms for w in here], [w.system_cpu_ms for w in there], confidence)
        figures.append(Figure(style, ratio, judge(ratio, CHEAPER) if judged else None))
    return figures
