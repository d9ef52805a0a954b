"""The slow bench: whether a service that takes long, or hangs, suffers from a conductor that batches.

Two real conductors, one that batches its calls and one that does not, get the same orders at the same times
(open loop, at a rate that both manage), one after the other in an order that rotates, in front of the same
stub services, which take a while. Completion is until the 201, from the intended time.
It refuses to compare what was not completed: an answer that is no 201 unbalances the ledger.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from lab.bench.arms import Arm
from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.batching_arms import BATCHING, OFF, ON, serving
from lab.bench.children import BenchError, Child, fetch, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.intervals import Goal, Ratio, Verdict, each_of, judge, paired_ratio, quantiles
from lab.bench.ledger import Account, Ledger, reconcile, stored_orders
from lab.bench.setting import Setting, describe
from lab.bench.stub import SERVICES, Manner

START_TIMEOUT_S = 20.0
SLACK_S = 30.0  # on top of a plan's own bounds, before the generator counts as dead
WAIT_S = 30  # as long as a client may wait: longer than any order here takes
NO_WORSE = Goal("at_most", 1.05)
METRICS = ("p50", "p99")

Row = tuple[
    str, float, float, bool
]  # order id, intended time in s since 1970, ms until its answer, a member's


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way in which the services are slow."""

    name: str
    manner: Manner


SCENARIOS = (
    Scenario("1 ms", Manner(0.001)),
    Scenario("10 ms", Manner(0.010)),
    Scenario("80 ms", Manner(0.080)),
    Scenario("10 ms, 0.5% hang", Manner(0.010, hangs_every=200)),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each scenario `pairs` rounds of both conductors, `measured_s` each, warmed up.

    `rate` is in orders a second; `judged` is whether the goals are held against what is found.
    """

    pairs: int
    measured_s: float
    warm_up_s: float
    rate: float
    judged: bool
    scenarios: tuple[Scenario, ...] = SCENARIOS
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many stretches that makes."""
        return len(self.scenarios) * self.pairs * len(BATCHING)


@dataclass(frozen=True, slots=True)
class Stretch:
    """One conductor in one scenario for a while; `completion_ms` is of orders that were due in it."""

    scenario: str
    batching: str
    round: int
    orders: int
    completion_ms: dict[str, float]
    generator_lag_ms: dict[str, float]
    conductor_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A ratio, with batching over without, and what it says about the goal; None: a look judges nothing."""

    scenario: str
    metric: str
    ratio: Ratio
    goal: Goal
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found."""

    setting: Setting
    shape: Shape
    stretches: list[Stretch]
    figures: list[Figure]
    ledger: Ledger

    @property
    def balances(self) -> bool:
        """Whether each conductor completed each order that it accepted, and met no error."""
        return self.ledger.balances

    @property
    def passed(self) -> bool:
        """Whether the ledger balances and every goal that was judged is reached."""
        return self.balances and all(figure.verdict in ("reached", None) for figure in self.figures)


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next before each stretch.

    SIGTERM ends it as Ctrl-C does. Raises BenchError.
    """
    setting = await asyncio.to_thread(describe, folder)
    async with AsyncExitStack() as stack:
        advance("starting")
        stub = await stack.enter_async_context(
            running("stub services", "lab.bench.stub", env={}, log=folder / "stub.log", talks=True)
        )
        ports = await stub.ask(b"", START_TIMEOUT_S)
        generator = await stack.enter_async_context(
            running("load generator", "lab.bench.arrivals", env={}, log=folder / "generator.log", talks=True)
        )
        arms = await stack.enter_async_context(serving(ports, folder))
        bench = _Bench(shape, stub, ports, generator, arms, folder / "rows.json")
        for scenario in shape.scenarios:
            await bench.measure(scenario, advance)
        ledger = reconcile(bench.accounts, {name: await stored_orders(arm) for name, arm in arms.items()})
    figures = compare(bench.stretches, shape.scenarios, judged=shape.judged)
    return Outcome(setting, shape, bench.stretches, figures, ledger)


class _Bench:
    """The stretches of a run so far, and the processes that make them."""

    def __init__(
        self,
        shape: Shape,
        stub: Child,
        ports: Mapping[str, int],
        generator: Child,
        arms: Mapping[str, Arm],
        rows: Path,
    ) -> None:
        self.stretches: list[Stretch] = []
        self.accounts = {name: Account() for name in arms}
        self._shape = shape
        self._stub = stub
        self._ports = ports
        self._generator = generator
        self._arms = arms
        self._rows = rows

    async def measure(self, scenario: Scenario, advance: Callable[[str], None]) -> None:
        """All rounds of one scenario, each beginning with the other conductor."""
        for number in range(self._shape.pairs):
            turn = number % len(BATCHING)
            for batching in BATCHING[turn:] + BATCHING[:turn]:
                advance(f"{scenario.name}: round {number + 1} of {self._shape.pairs}, batching {batching}")
                await self._measure(scenario, batching, number)

    async def _measure(self, scenario: Scenario, batching: str, number: int) -> None:
        shape, arm = self._shape, self._arms[batching]
        await self._stub.ask(orjson.dumps(asdict(scenario.manner)), START_TIMEOUT_S)
        before = await self._calls()
        plan = OpenPlan(
            port=arm.port,
            style="orchestration",
            rate=shape.rate,
            warm_up_s=shape.warm_up_s,
            measured_s=shape.measured_s,
            seed=shape.seed + number,
            processes={"conductor": arm.child.process.pid},
            file=str(self._rows),
            prefer=f"wait={WAIT_S}",
        )
        bound_s = plan.warm_up_s + plan.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
        arrivals = Arrivals(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        rows: list[Row] = orjson.loads(await asyncio.to_thread(self._rows.read_bytes))
        after = await self._calls()
        if arm.child.process.returncode is not None:
            raise arm.child.trouble(f"ended with exit code {arm.child.process.returncode}")
        enter(
            self.accounts[batching], arrivals, rows, {name: after[name] - before[name] for name in SERVICES}
        )
        if not (completion_ms := completions(arrivals, rows)):
            problems = ", ".join(arrivals.errors) or "none was due"
            raise arm.child.trouble(f"completed no order in the measured time: {problems}")
        cpu_ms = arrivals.cpu_s["conductor"] * 1000 / (shape.rate * shape.measured_s)
        self.stretches.append(
            Stretch(scenario.name, batching, number + 1, len(rows), completion_ms, arrivals.lag_ms, cpu_ms)
        )

    async def _calls(self) -> dict[str, int]:
        counts = orjson.loads((await fetch(self._ports["email"], "/counts")).body)
        return {name: counts.get(name, 0) for name in SERVICES}


def completions(arrivals: Arrivals, rows: Sequence[Row]) -> dict[str, float]:
    """Quantiles, in ms, of the time until the answer, of orders that were to leave in the measured time."""
    return quantiles([ms for _, at, ms, _ in rows if arrivals.opens_at <= at < arrivals.closes_at])


def enter(account: Account, arrivals: Arrivals, rows: Sequence[Row], calls: Mapping[str, int]) -> None:
    """Adds a stretch to a conductor's account; an order that was not final when answered is an error."""
    account.orders += len(rows)
    account.members += sum(member for _, _, _, member in rows)
    account.errors.update(arrivals.errors)
    if arrivals.handed_in:
        account.errors["not-final"] += arrivals.handed_in
    account.calls.update(calls)


def compare(stretches: Sequence[Stretch], scenarios: Sequence[Scenario], *, judged: bool) -> list[Figure]:
    """Every ratio of completion, with batching over without; the intervals hold together at 95 %.

    Raises BenchError where an order took no time at all.
    """
    confidence = each_of(len(scenarios) * len(METRICS))
    figures = []
    for scenario in scenarios:
        for metric in METRICS:
            ours, theirs = (_series(stretches, scenario.name, batching, metric) for batching in (ON, OFF))
            try:
                ratio = paired_ratio(ours, theirs, confidence)
            except ValueError as error:
                raise BenchError(f"{scenario.name}: {error}") from error
            verdict = judge(ratio, NO_WORSE) if judged else None
            figures.append(Figure(scenario.name, metric, ratio, NO_WORSE, verdict))
    return figures


def _series(stretches: Sequence[Stretch], scenario: str, batching: str, metric: str) -> list[float]:
    at = [each for each in stretches if (each.scenario, each.batching) == (scenario, batching)]
    return [each.completion_ms[metric] for each in sorted(at, key=lambda each: each.round)]
