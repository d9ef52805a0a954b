"""The growth bench: one conductor's throughput as its database grows, in rounds that are interleaved.

Each size has a database of its own, filled with completed orders before the start (`lab.bench.filling`), and
a durable conductor on it. For each round all conductors are started anew, their databases put back to their
sizes, so that none grows from round to round; within a round it grows by what was measured.
A ratio is of two sizes in one round. It refuses to judge by speed alone: every order is reconciled.
"""

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.bench.arms import DUET, all_ready, database_of, durable
from lab.bench.children import BenchError, free_ports, wait_ready
from lab.bench.closed import ClosedLoop, closed_loop
from lab.bench.filling import fill, newest, take_back
from lab.bench.generator import Measurement
from lab.bench.intervals import Goal, Ratio, Verdict, each_of, judge, paired_ratio
from lab.bench.ledger import Ledger, reconcile, stored_orders
from lab.bench.setting import Setting, describe

FLAT = Goal("at_least", 0.9)
TEMPLATE = "templates"
TEMPLATE_CLIENTS = 16
COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each of `pairs` rounds, every size of `sizes` (the first is the measure)."""

    sizes: tuple[int, ...]
    pairs: int
    measured_s: float
    warm_up_s: float
    clients: int = 64
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many measurements that makes, and databases to fill."""
        return self.pairs * len(self.sizes) + len(self.sizes)


@dataclass(frozen=True, slots=True)
class Growth:
    """The throughput at one size over that at the smallest, and whether that is flat."""

    size: int
    ratio: Ratio
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found; an arm of `measurements` is `name_of` a size."""

    setting: Setting
    shape: Shape
    measurements: list[Measurement]
    curve: list[Growth]
    ledger: Ledger

    @property
    def passed(self) -> bool:
        """Whether the curve is flat and the ledger balances."""
        return self.ledger.balances and all(each.verdict == "reached" for each in self.curve)


def name_of(size: int) -> str:
    """The name of the arm that has so many orders already: `duet-1000`."""
    return f"{DUET}-{size}"


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next. Raises BenchError."""
    setting = await asyncio.to_thread(describe, folder)
    advance("placing the orders that are multiplied")
    bounds = {"warm_up_s": shape.warm_up_s, "measured_s": shape.measured_s}
    async with closed_loop(folder, **bounds, seed=shape.seed) as loop:
        stored = {TEMPLATE: await _place_templates(loop, folder)}
        last: dict[int, str] = {}
        for size in shape.sizes:
            advance(f"filling a database with {size:,} orders")
            last[size] = await asyncio.to_thread(_filled, folder, size)
        totals = {size: Counter[str]() for size in shape.sizes}
        for number in range(shape.pairs):
            await _measure_round(shape, loop, folder, number, advance, totals)
            for size in shape.sizes:
                path = database_of(name_of(size), folder)
                await asyncio.to_thread(take_back, path, last[size])
    stored |= {name_of(size): dict(total) for size, total in totals.items()}
    measured = [m for m in loop.measurements if m.arm != TEMPLATE]
    ledger = reconcile(loop.accounts, stored)
    return Outcome(setting, shape, measured, growth_curve(measured, shape.sizes), ledger)


async def _place_templates(loop: ClosedLoop, folder: Path) -> dict[str, int]:
    """Some real orders, in a database of their own that is left without its service."""
    [port] = free_ports(1)
    async with durable(TEMPLATE, port, loop.ports, folder, {}) as arm:
        await wait_ready(arm.child, arm.port)
        await loop.measure(arm, TEMPLATE_CLIENTS)
        return await stored_orders(arm)


def _filled(folder: Path, size: int) -> str:
    """A database of `size` orders, made of the templates; the id of its last order."""
    path = database_of(name_of(size), folder)
    try:
        shutil.copyfile(database_of(TEMPLATE, folder), path)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from error
    fill(path, size)
    return newest(path)


async def _measure_round(
    shape: Shape,
    loop: ClosedLoop,
    folder: Path,
    number: int,
    advance: Callable[[str], None],
    totals: Mapping[int, Counter[str]],
) -> None:
    """One round; `totals` get the orders by status that each database has more than before."""
    turn = number % len(shape.sizes)
    starting = [
        durable(name_of(size), port, loop.ports, folder, {})
        for size, port in zip(shape.sizes, free_ports(len(shape.sizes)), strict=True)
    ]
    async with all_ready(starting) as arms:
        for size in shape.sizes[turn:] + shape.sizes[:turn]:
            advance(f"round {number + 1} of {shape.pairs}, {size:,} orders already there")
            await loop.measure(arms[name_of(size)], shape.clients)
        for size in shape.sizes:
            totals[size].update(await stored_orders(arms[name_of(size)]))
            totals[size][COMPLETED] -= size


def growth_curve(measurements: Sequence[Measurement], sizes: Sequence[int]) -> list[Growth]:
    """The throughput at each size over that at the first, paired by round; the intervals hold together."""
    rates = {size: [m.rate for m in measurements if m.arm == name_of(size)] for size in sizes}
    confidence = each_of(len(sizes) - 1)
    curve = []
    for size in sizes[1:]:
        ratio = paired_ratio(rates[size], rates[sizes[0]], confidence)
        curve.append(Growth(size, ratio, judge(ratio, FLAT)))
    return curve
