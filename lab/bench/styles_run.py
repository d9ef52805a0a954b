"""The styles bench: both styles on one whole system of real services, in interleaved windows.

One system serves all windows of a mail setting, in an order that rotates from round to round, so that what
drifts (the databases grow, the machine warms up) meets both styles alike, and no style gets the fresher disk.
Before each window the system is quiet again, so that none pays for another's leftovers. It refuses to judge
by speed alone: in the end every order is reconciled with every service's effects.
"""

import asyncio
import csv
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import orjson

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.children import BenchError, Child, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.goals import FULL, HALF, Goal, judge
from lab.bench.intervals import quantiles
from lab.bench.lone import Lone, LonePlan
from lab.bench.setting import Setting, describe
from lab.bench.whole import Whole, whole_system
from lab.bench.windows import Alone, Raw, Window, summarise
from lab.client import Patience, open_client
from lab.ledger import Report, reconcile
from lab.reading import read_books
from lab.system import CONDUCTOR, Mail

SLACK_S = 30.0  # on top of a plan's own bounds, before the generator counts as dead
LONE_ORDER_S = 1.0  # on average, at the very most
IDLE_S = 5.0
READ_S = 60.0
CSV_HEAD = ("order_id", "intended_at", "ack_ms", "completion_ms")


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each round, for every style, a window at its full rate, one at half of it for
    half as long, and a lone client.

    `rates` are orders a second by style; `judged` is whether goals are held against what is found.
    """

    mails: tuple[Mail, ...]
    rates: Mapping[str, float]
    rounds: int
    measured_s: float
    warm_up_s: float
    lone_orders: int
    lone_warm_up: int
    judged: bool
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many measurements that makes, with the start and the final read of each system."""
        return len(self.mails) * (self.rounds * len(self.rates) * 3 + 2)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found on one system: idle memory in MB by process, windows, lone orders, the ledger, goals."""

    mail: Mail
    idle_mb: dict[str, float]
    windows: list[Window]
    alone: list[Alone]
    ledger: Report
    goals: list[Goal]

    @property
    def passed(self) -> bool:
        """Whether the ledger balances, no order met an error, and no goal is missed."""
        trouble = any(window.errors for window in self.windows) or any(each.errors for each in self.alone)
        return self.ledger.balances and not trouble and all(goal.met is not False for goal in self.goals)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found, one system after the other."""

    setting: Setting
    shape: Shape
    found: list[Found]

    @property
    def passed(self) -> bool:
        """Whether every system did what was asked of it."""
        return all(each.passed for each in self.found)


async def run(shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `out`, if given, gets each window's orders as CSV.

    `advance` is called with what comes next. SIGTERM ends it as Ctrl-C does. Raises LabError.
    """
    setting = await asyncio.to_thread(describe, folder)
    return Outcome(
        setting, shape, [await _measure(mail, shape, folder, out, advance) for mail in shape.mails]
    )


async def _measure(
    mail: Mail, shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]
) -> Found:
    """Everything on one system, which is gone afterwards."""
    own = folder / mail
    own.mkdir()
    async with AsyncExitStack() as stack:
        advance(f"mail {mail}: starting")
        generator = await stack.enter_async_context(
            running("load generator", "lab.bench.arrivals", env={}, log=own / "generator.log", talks=True)
        )
        whole = await stack.enter_async_context(whole_system(own, mail))
        client = await stack.enter_async_context(open_client())
        await asyncio.sleep(IDLE_S)
        idle_mb = whole.memory_mb()
        bench = _Bench(shape, whole, generator, client, own / "rows.json")
        for number in range(shape.rounds):
            await bench.measure_round(number, lambda what: advance(f"mail {mail}, {what}"))
        advance(f"mail {mail}: reading the books")
        windows, alone, ledger = await bench.reckon(out)
    shutil.rmtree(own)
    goals = judge(mail, windows, alone, idle_mb) if shape.judged else []
    return Found(mail, idle_mb, windows, alone, ledger, goals)


class _Bench:
    """The measurements on one system so far."""

    def __init__(
        self, shape: Shape, whole: Whole, generator: Child, client: httpx.AsyncClient, rows: Path
    ) -> None:
        self._shape = shape
        self._whole = whole
        self._generator = generator
        self._client = client
        self._rows = rows
        self._raw: list[Raw] = []
        self._lone: list[tuple[str, Lone]] = []

    async def measure_round(self, number: int, advance: Callable[[str], None]) -> None:
        """One round: every style under every load, beginning with another style than the round before."""
        styles = list(self._shape.rates)
        turn = number % len(styles)
        for load in (FULL, HALF, "lone"):
            for style in styles[turn:] + styles[:turn]:
                advance(f"round {number + 1} of {self._shape.rounds}: {style}, {load}")
                if load == "lone":
                    await self._measure_lone(style, number)
                else:
                    await self._measure_window(style, load, number)

    async def reckon(self, out: Path | None) -> tuple[list[Window], list[Alone], Report]:
        """Read the books of the quiet system, and say what everything comes to."""
        await self._whole.check_alive()
        promised = {row[0] for raw in self._raw for row in raw.rows}
        promised |= {order_id for _, lone in self._lone for order_id in lone.order_ids}
        orders, effects = await read_books(self._client, self._whole.system, promised, Patience(READ_S))
        completed = {
            order_id: None if order.completed_at is None else order.completed_at.timestamp()
            for order_id, order in orders.items()
        }
        if out is not None:
            for raw in self._raw:
                _keep(out, self._whole.mail, raw, completed)
        windows = [summarise(self._whole.mail, raw, completed) for raw in self._raw]
        return windows, self._alone(), reconcile(promised, orders.values(), effects)

    async def _measure_window(self, style: str, load: str, number: int) -> None:
        shape = self._shape
        share = 1.0 if load == FULL else 0.5
        plan = OpenPlan(
            port=self._whole.system.port(CONDUCTOR),
            style=style,
            rate=shape.rates[style] * share,
            warm_up_s=shape.warm_up_s,
            measured_s=shape.measured_s * share,
            seed=shape.seed + number,
            processes=self._whole.pids,
            file=str(self._rows),
        )
        bound_s = plan.warm_up_s + plan.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
        arrivals = Arrivals(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        undelivered = await self._whole.undelivered()
        rows = [(row[0], row[1], row[2]) for row in orjson.loads(self._rows.read_bytes())]
        if not rows:
            problems = ", ".join(arrivals.errors) or "no order was due"
            raise BenchError(f"checkout accepted no order of {style}: {problems}")
        self._raw.append(Raw(load, number + 1, plan, arrivals, rows, undelivered))
        await self._whole.settle(self._client)

    async def _measure_lone(self, style: str, number: int) -> None:
        shape = self._shape
        port = self._whole.system.port(CONDUCTOR)
        plan = LonePlan(port, style, shape.lone_warm_up, shape.lone_orders, shape.seed + number)
        bound_s = (plan.warm_up + plan.orders) * LONE_ORDER_S + SLACK_S
        found = await self._generator.ask(orjson.dumps(asdict(plan)), bound_s)
        self._lone.append((style, Lone(**found)))
        await self._whole.settle(self._client)

    def _alone(self) -> list[Alone]:
        alone = []
        for style in self._shape.rates:
            runs = [lone for told, lone in self._lone if told == style]
            latency_ms = [each for lone in runs for each in lone.latency_ms]
            errors = sum((Counter(lone.errors) for lone in runs), Counter[str]())
            alone.append(Alone(self._whole.mail, style, len(latency_ms), dict(errors), quantiles(latency_ms)))
        return alone


def _keep(out: Path, mail: Mail, raw: Raw, completed: Mapping[str, float | None]) -> None:
    """Write a window's orders, warm-up included; an empty completion is one that never came."""
    file = out / f"{mail}-{raw.round}-{raw.plan.style}-{raw.load}.csv"
    with file.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(CSV_HEAD)
        for order_id, intended, ack_ms in raw.rows:
            end = completed.get(order_id)
            took = "" if end is None else f"{(end - intended) * 1000:.3f}"
            writer.writerow((order_id, f"{intended:.6f}", f"{ack_ms:.3f}", took))
