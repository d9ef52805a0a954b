"""The conductor bench: the real conductor beside three others, interleaved, on the same stub services.

A round measures every arm at every number of clients, in an order that rotates from round to round; a ratio
is of two arms in one round. Ratios hold for this machine and these stubs, which answer at once: they price
what the conductor itself does for its promise (journal, retries, checks), not what a checkout takes.
The generator's own ceiling is measured in the same run, so that nobody takes the client for the server.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.bench.arms import ARMS, DUET, DUET_PLAIN, DURABLE, NAIVE_AIOHTTP, NAIVE_HTTPX, Arm, serving
from lab.bench.children import BenchError
from lab.bench.closed import CEILING, ClosedLoop, closed_loop, others_share
from lab.bench.generator import Measurement
from lab.bench.intervals import Goal, Ratio, Verdict, each_of, judge, paired_ratio
from lab.bench.ledger import Ledger, reconcile, stored_orders
from lab.bench.setting import Setting, describe

LEAST_HEADROOM = 2.0
QUIET_CPU_SHARE = 0.1  # of one core: above it, the intervals grow with what else the machine is doing

GOALS = {
    ("throughput", 16): Goal("at_least", 1.8),
    ("throughput", 64): Goal("at_least", 3.0),
    ("p50", 1): Goal("at_most", 1.5),
}
FEW, MANY = 16, 256  # clients: a conductor that batches gains by company
MANY_OVER_FEW = Goal("at_least", 1.4)


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: `pairs` rounds of `measured_s` for each arm and number of clients, warmed up."""

    pairs: int
    measured_s: float
    warm_up_s: float
    clients: tuple[int, ...]
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many measurements that makes, the generator's ceilings included."""
        return self.pairs * len(self.clients) * len(ARMS) + len(self.clients)


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio, real conductor over another, and its verdict where there is a goal.

    The other has as many clients, unless `against_clients` says how many.
    """

    metric: str
    against: str
    clients: int
    ratio: Ratio
    goal: Goal | None
    verdict: Verdict | None
    against_clients: int | None = None


@dataclass(frozen=True, slots=True)
class Headroom:
    """How far the generator was from being the bottleneck: its ceiling over the fastest rate measured.

    CPU shares are of one core, the highest of any measurement.
    """

    clients: int
    ceiling_rate: float
    ceiling_p50_ms: float
    fastest_rate: float
    ratio: float
    generator_cpu_share: float
    stubs_cpu_share: float

    @property
    def enough(self) -> bool:
        """Whether what was measured is the conductor, not the generator."""
        return self.ratio >= LEAST_HEADROOM


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found. `measurements` are in the order in which they were made."""

    setting: Setting
    shape: Shape
    measurements: list[Measurement]
    figures: list[Figure]
    headrooms: list[Headroom]
    ledger: Ledger

    @property
    def others_cpu_share(self) -> float:
        """The share of one core that processes foreign to the bench used, median over the measurements."""
        return others_share(self.measurements)

    @property
    def reached(self) -> bool:
        """Whether at least one goal was measured and all that were are reached."""
        verdicts = [figure.verdict for figure in self.figures if figure.verdict is not None]
        return bool(verdicts) and all(verdict == "reached" for verdict in verdicts)

    @property
    def passed(self) -> bool:
        """Whether the goals are reached and the ledger balances."""
        return self.reached and self.ledger.balances


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next before each measurement.

    SIGTERM ends it as Ctrl-C does: by cancelling it, all its processes ended. Raises BenchError.
    """
    setting = await asyncio.to_thread(describe, folder)
    advance("starting")
    bounds = {"warm_up_s": shape.warm_up_s, "measured_s": shape.measured_s}
    async with (
        closed_loop(folder, **bounds, seed=shape.seed) as loop,
        serving(loop.ports, folder) as arms,
    ):
        await _measure_all(shape, loop, arms, advance)
        stored = {name: await stored_orders(arms[name]) for name in DURABLE}
        ledger = reconcile(loop.accounts, stored)
    arm_measurements = [m for m in loop.measurements if m.arm != CEILING]
    return Outcome(
        setting=setting,
        shape=shape,
        measurements=loop.measurements,
        figures=compare(arm_measurements, shape.clients),
        headrooms=[headroom(loop.measurements, count) for count in shape.clients],
        ledger=ledger,
    )


async def _measure_all(
    shape: Shape, loop: ClosedLoop, arms: Mapping[str, Arm], advance: Callable[[str], None]
) -> None:
    for clients in shape.clients:
        advance(f"the generator's own ceiling, {clients} clients")
        await loop.measure_ceiling(clients)
    for number in range(shape.pairs):
        turn = number % len(ARMS)
        for clients in shape.clients:
            for name in ARMS[turn:] + ARMS[:turn]:
                advance(f"round {number + 1} of {shape.pairs}, {clients} clients, {name}")
                await loop.measure(arms[name], clients)


def compare(measurements: Sequence[Measurement], clients: Sequence[int]) -> list[Figure]:
    """Every ratio of the real conductor to another: throughput at each number of clients, p50 at one client;
    and its own throughput with many clients to that with few.

    The intervals hold together at 95 % for those that have a goal, and each at that same confidence for the
    rest.
    """
    wanted = [("throughput", count) for count in clients]
    wanted += [("p50", count) for count in clients if count == 1]
    grows = FEW in clients and MANY in clients
    confidence = each_of(sum(figure in GOALS for figure in wanted) + grows)
    figures = []
    for against in (NAIVE_AIOHTTP, NAIVE_HTTPX, DUET_PLAIN):
        for metric, count in wanted:
            ours, theirs = (_series(measurements, arm, metric, count) for arm in (DUET, against))
            ratio = paired_ratio(ours, theirs, confidence)
            goal = GOALS.get((metric, count)) if against == NAIVE_AIOHTTP else None
            figures.append(Figure(metric, against, count, ratio, goal, judge(ratio, goal) if goal else None))
    if grows:
        many, few = (_series(measurements, DUET, "throughput", count) for count in (MANY, FEW))
        ratio = paired_ratio(many, few, confidence)
        verdict = judge(ratio, MANY_OVER_FEW)
        figures.append(Figure("throughput", DUET, MANY, ratio, MANY_OVER_FEW, verdict, FEW))
    return figures


def headroom(measurements: Sequence[Measurement], clients: int) -> Headroom:
    """The generator's ceiling with `clients` clients, beside the fastest arm at that number."""
    at = [m for m in measurements if m.clients == clients]
    ceiling = next(m for m in at if m.arm == CEILING)
    arms = [m for m in at if m.arm != CEILING]
    fastest = max(m.rate for m in arms)
    return Headroom(
        clients=clients,
        ceiling_rate=ceiling.rate,
        ceiling_p50_ms=ceiling.latency_ms["p50"],
        fastest_rate=fastest,
        ratio=ceiling.rate / fastest,
        generator_cpu_share=max(m.cpu_s["generator"] / m.measured_s for m in arms),
        stubs_cpu_share=max(m.cpu_s["stubs"] / m.measured_s for m in arms),
    )


def _series(measurements: Sequence[Measurement], arm: str, metric: str, clients: int) -> list[float]:
    at = [m for m in measurements if m.arm == arm and m.clients == clients]
    series = [m.rate if metric == "throughput" else m.latency_ms.get("p50", 0.0) for m in at]
    if not all(series):
        raise BenchError(f"{arm} completed no order in a measured time at {clients} clients")
    return series
