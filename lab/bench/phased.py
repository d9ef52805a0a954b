"""The generator of the overload and the storm bench: orders at rates that change, each answer written down.

Open loop, evenly spaced: orders leave at intended times, whatever became of those before, and whoever is
turned away does not ask again. It refuses to leave out an order: each has a row, answered or not.
Run as `python -m lab.bench.phased`: JSON lines, a plan in, what came of it out.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
import uvloop

from lab.bench.connections import Connections, Due
from lab.bench.generator import DRAIN_TIMEOUT_S
from lab.bench.intervals import quantiles
from lab.bench.orders import Origin, PreparedOrder, encode_order, prepare_orders, read_accepted
from lab.bench.wire import Reply

CONNECTIONS = 512  # well below the usual bound on open files; an order that finds all of them busy waits

Row = tuple[float, float, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Phase:
    """So many orders a second for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class PhasedPlan:
    """Orders of one style in phases, the first from `starts_at` on, in seconds since 1970.

    `file` is where each order's row goes.
    """

    port: int
    style: str
    phases: tuple[Phase, ...]
    starts_at: float
    seed: int
    file: str

    @property
    def length_s(self) -> float:
        """How long all phases last."""
        return sum(phase.seconds for phase in self.phases)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of a plan: how many orders were due, and how late the generator itself was.

    The file holds a JSON array of [intended time in seconds since 1970, ms until the answer, slug of what was
    wrong with it or null, order id or null].
    """

    due: int
    lag_ms: dict[str, float]


def intended_times(phases: Sequence[Phase]) -> Iterator[float]:
    """When orders are to leave, in seconds from the start: evenly spaced within each phase."""
    begins = 0.0
    for phase in phases:
        for number in range(round(phase.rate * phase.seconds)):
            yield begins + (number + 0.5) / phase.rate
        begins += phase.seconds


async def run_phased(plan: PhasedPlan, orders: Sequence[PreparedOrder]) -> Answers:
    """Runs a plan to its end: at most its time and half a minute for the last answers.

    Raises OSError if nothing listens.
    """
    rows: list[Row] = []
    lags_ms: list[float] = []
    times = list(intended_times(plan.phases))
    all_answered = asyncio.Event()
    to_wall_s = time.time() - time.perf_counter()

    def hear(due: Due, reply: Reply | None, slug: str | None) -> None:
        took_ms = (time.perf_counter() - due.intended) * 1000
        order_id, problem = (None, slug) if reply is None else read_accepted(reply, plan.style)
        rows.append((due.intended + to_wall_s, took_ms, problem, order_id))
        if len(rows) == len(times):
            all_answered.set()

    connections = Connections(hear)
    await connections.open(plan.port, CONNECTIONS)
    start, origin = plan.starts_at - to_wall_s, Origin("127.0.0.1", plan.port)
    try:
        for number, at in enumerate(times):
            intended = start + at
            await asyncio.sleep(max(intended - time.perf_counter(), 0))  # replies are read even when late
            lags_ms.append((time.perf_counter() - intended) * 1000)
            order = orders[number % len(orders)]
            request = encode_order(origin, plan.style, order.body, "respond-async")
            connections.send(Due(intended, request, order.member))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(all_answered.wait(), DRAIN_TIMEOUT_S)
    finally:
        connections.close()
    await asyncio.to_thread(Path(plan.file).write_bytes, orjson.dumps(rows))
    return Answers(len(times), quantiles(lags_ms))


def read_plan(line: str) -> PhasedPlan:
    """The plan that a line of JSON holds."""
    told = orjson.loads(line)
    return PhasedPlan(**{**told, "phases": tuple(Phase(**phase) for phase in told["phases"])})


def main() -> None:
    """Runs the plans that the parent writes, one after another, until it closes our input."""
    for line in sys.stdin:
        plan = read_plan(line)
        found = uvloop.run(run_phased(plan, prepare_orders(plan.seed)))
        sys.stdout.write(orjson.dumps(asdict(found)).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
