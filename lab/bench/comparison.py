"""The conductor bench: the real conductor beside two baselines, interleaved, on the same stub services.

A round measures every arm at every number of clients, in an order that rotates from round to round; a ratio
is of two arms in one round. Ratios hold for this machine and these stubs, which answer at once: they price
what the conductor itself does for its promise (journal, retries, checks), not what a checkout takes.
The generator's own ceiling is measured in the same run, so that nobody takes the client for the server.
"""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from lab.bench.arms import ARMS, DUET, NAIVE_AIOHTTP, NAIVE_HTTPX, Arm, serving
from lab.bench.children import BenchError, Child, fetch, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S, Measurement, Plan
from lab.bench.intervals import Goal, Ratio, Verdict, each_of, judge, paired_ratio
from lab.bench.ledger import Account, Ledger, reconcile, stored_orders
from lab.bench.setting import Setting, describe
from lab.bench.stub import SERVICES

CEILING = "ceiling"  # the generator against the stub itself
START_TIMEOUT_S = 20.0
SLOWEST_MACHINE_S = 10.0  # on top of a plan's own bounds, before the generator counts as dead
LEAST_HEADROOM = 2.0
QUIET_CPU_SHARE = 0.1  # of one core: above it, the intervals grow with what else the machine is doing

GOALS = {
    ("throughput", 16): Goal("at_least", 0.6),
    ("throughput", 64): Goal("at_least", 0.6),
    ("p50", 1): Goal("at_most", 1.8),
}


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
    """One ratio, real conductor over baseline, and its verdict where there is a goal."""

    metric: str
    against: str
    clients: int
    ratio: Ratio
    goal: Goal | None
    verdict: Verdict | None


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
        return statistics.median(
            m.cpu_s["others"] / m.measured_s for m in self.measurements if m.arm != CEILING
        )

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
    async with AsyncExitStack() as stack:
        advance("starting")
        stub = await stack.enter_async_context(
            running("stub services", "lab.bench.stub", env={}, log=folder / "stub.log", talks=True)
        )
        ports = await stub.ask(b"", START_TIMEOUT_S)
        generator = await stack.enter_async_context(
            running("load generator", "lab.bench.generator", env={}, log=folder / "generator.log", talks=True)
        )
        arms = await stack.enter_async_context(serving(ports, folder))
        bench = _Bench(shape, stub, ports, generator, arms)
        await bench.measure_all(advance)
        ledger = reconcile(bench.accounts, await stored_orders(arms[DUET]))
    arm_measurements = [m for m in bench.measurements if m.arm != CEILING]
    return Outcome(
        setting=setting,
        shape=shape,
        measurements=bench.measurements,
        figures=compare(arm_measurements, shape.clients),
        headrooms=[headroom(bench.measurements, count) for count in shape.clients],
        ledger=ledger,
    )


class _Bench:
    """The measurements of a run so far, and the processes that make them."""

    def __init__(
        self, shape: Shape, stub: Child, ports: Mapping[str, int], generator: Child, arms: Mapping[str, Arm]
    ) -> None:
        self.measurements: list[Measurement] = []
        self.accounts = {name: Account() for name in arms}
        self._shape = shape
        self._stub = stub
        self._ports = ports
        self._generator = generator
        self._arms = arms

    async def measure_all(self, advance: Callable[[str], None]) -> None:
        for clients in self._shape.clients:
            advance(f"the generator's own ceiling, {clients} clients")
            await self._measure(CEILING, self._ports["email"], clients, {})
        for number in range(self._shape.pairs):
            turn = number % len(ARMS)
            for clients in self._shape.clients:
                for name in ARMS[turn:] + ARMS[:turn]:
                    advance(f"round {number + 1} of {self._shape.pairs}, {clients} clients, {name}")
                    await self._measure_arm(self._arms[name], clients)

    async def _measure_arm(self, arm: Arm, clients: int) -> None:
        before = await self._calls()
        processes = {"conductor": arm.child.process.pid, "stubs": self._stub.process.pid}
        measurement = await self._measure(arm.name, arm.port, clients, processes)
        after = await self._calls()
        self.accounts[arm.name].enter(measurement, {name: after[name] - before[name] for name in SERVICES})
        if arm.child.process.returncode is not None:
            raise arm.child.trouble(f"ended with exit code {arm.child.process.returncode}")
        if not measurement.measured:
            problems = ", ".join(measurement.errors) or "no answer in time"
            raise arm.child.trouble(f"completed no order with {clients} clients: {problems}")

    async def _measure(self, arm: str, port: int, clients: int, processes: dict[str, int]) -> Measurement:
        shape = self._shape
        plan = Plan(arm, port, clients, shape.warm_up_s, shape.measured_s, shape.seed, processes)
        bound_s = shape.warm_up_s + shape.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLOWEST_MACHINE_S
        measurement = Measurement(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        self.measurements.append(measurement)
        return measurement

    async def _calls(self) -> dict[str, int]:
        counts = orjson.loads((await fetch(self._ports["email"], "/counts")).body)
        return {name: counts.get(name, 0) for name in SERVICES}


def compare(measurements: Sequence[Measurement], clients: Sequence[int]) -> list[Figure]:
    """Every ratio of the real conductor to a baseline: throughput at each number of clients, p50 at one
    client.

    The intervals hold together at 95 % for those that have a goal, and each at that same confidence for the
    rest.
    """
    wanted = [("throughput", count) for count in clients]
    wanted += [("p50", count) for count in clients if count == 1]
    confidence = each_of(sum(figure in GOALS for figure in wanted))
    figures = []
    for against in (NAIVE_AIOHTTP, NAIVE_HTTPX):
        for metric, count in wanted:
            ours, theirs = (_series(measurements, arm, metric, count) for arm in (DUET, against))
            ratio = paired_ratio(ours, theirs, confidence)
            goal = GOALS.get((metric, count)) if against == NAIVE_AIOHTTP else None
            figures.append(Figure(metric, against, count, ratio, goal, judge(ratio, goal) if goal else None))
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
