"""Open-loop windows on one whole system of real services, as the styles benches make them.

Before each window the system is quiet again, so that none pays for another's leftovers. It refuses to judge
by speed alone: in the end every order is reconciled with every service's effects.
"""

import csv
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import orjson

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.children import BenchError, Child, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.intervals import quantiles
from lab.bench.lone import Lone, LonePlan
from lab.bench.whole import Whole, whole_system
from lab.bench.windows import Alone, Raw, Window, summarise
from lab.client import Patience, open_client
from lab.ledger import Report, reconcile
from lab.reading import read_books
from lab.system import CONDUCTOR, Mail

SLACK_S = 30.0  # on top of a plan's own bounds, before the generator counts as dead
LONE_ORDER_S = 1.0  # on average, at the very most
READ_S = 60.0
CSV_HEAD = ("order_id", "intended_at", "ack_ms", "completion_ms")


@dataclass(frozen=True, slots=True)
class Load:
    """How one window is driven: orders a second, and seconds of warm-up (discarded) and of measuring."""

    name: str
    rate: float
    warm_up_s: float
    measured_s: float


class OpenLoop:
    """The measurements on one system so far; `seed` and the round's number say which orders come when."""

    def __init__(
        self, whole: Whole, generator: Child, client: httpx.AsyncClient, rows: Path, seed: int
    ) -> None:
        self.whole = whole
        self._generator = generator
        self._client = client
        self._rows = rows
        self._seed = seed
        self._raw: list[Raw] = []
        self._lone: list[tuple[str, Lone]] = []

    async def measure(self, style: str, load: Load, number: int) -> None:
        """One window, in the round after `number` others. Raises LabError."""
        plan = OpenPlan(
            port=self.whole.system.port(CONDUCTOR),
            style=style,
            rate=load.rate,
            warm_up_s=load.warm_up_s,
            measured_s=load.measured_s,
            seed=self._seed + number,
            processes=self.whole.pids,
            file=str(self._rows),
        )
        bound_s = plan.warm_up_s + plan.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
        arrivals = Arrivals(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        undelivered = await self.whole.undelivered()
        rows = [(row[0], row[1], row[2]) for row in orjson.loads(self._rows.read_bytes())]
        if not rows:
            problems = ", ".join(arrivals.errors) or "no order was due"
            raise BenchError(f"checkout accepted no order of {style}: {problems}")
        self._raw.append(Raw(load.name, number + 1, plan, arrivals, rows, undelivered))
        await self.whole.settle(self._client)

    async def measure_lone(self, style: str, warm_up: int, orders: int, number: int) -> None:
        """One lone client's orders. Raises LabError."""
        plan = LonePlan(self.whole.system.port(CONDUCTOR), style, warm_up, orders, self._seed + number)
        bound_s = (plan.warm_up + plan.orders) * LONE_ORDER_S + SLACK_S
        found = await self._generator.ask(orjson.dumps(asdict(plan)), bound_s)
        self._lone.append((style, Lone(**found)))
        await self.whole.settle(self._client)

    async def reckon(self, out: Path | None) -> tuple[list[Window], list[Alone], Report]:
        """Read the books of the quiet system, and say what everything comes to.

        `out`, if given, gets each window's orders as CSV. Raises LabError.
        """
        await self.whole.check_alive()
        promised = {row[0] for raw in self._raw for row in raw.rows}
        promised |= {order_id for _, lone in self._lone for order_id in lone.order_ids}
        orders, effects = await read_books(self._client, self.whole.system, promised, Patience(READ_S))
        completed = {
            order_id: None if order.completed_at is None else order.completed_at.timestamp()
            for order_id, order in orders.items()
        }
        if out is not None:
            for raw in self._raw:
                _keep(out, self.whole.mail, raw, completed)
        windows = [summarise(self.whole.mail, raw, completed) for raw in self._raw]
        return windows, self._alone(), reconcile(promised, orders.values(), effects)

    def _alone(self) -> list[Alone]:
        alone = []
        for style in dict.fromkeys(style for style, _ in self._lone):
            runs = [lone for told, lone in self._lone if told == style]
            latency_ms = [each for lone in runs for each in lone.latency_ms]
            errors = sum((Counter(lone.errors) for lone in runs), Counter[str]())
            alone.append(Alone(self.whole.mail, style, len(latency_ms), dict(errors), quantiles(latency_ms)))
        return alone


@asynccontextmanager
async def open_loop(folder: Path, mail: Mail, seed: int, tree: Path | None = None) -> AsyncIterator[OpenLoop]:
    """A whole system (of another `tree`, if given) with its data in `folder`, and a generator beside it.

    Ended on the way out. Raises LabError.
    """
    log = folder / "generator.log"
    async with (
        running("load generator", "lab.bench.arrivals", env={}, log=log, talks=True) as generator,
        whole_system(folder, mail, tree=tree) as whole,
        open_client() as client,
    ):
        yield OpenLoop(whole, generator, client, folder / "rows.json", seed)


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
