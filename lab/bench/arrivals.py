"""The generator of the styles bench: orders leave at intended times, whatever became of those before.

Latency counts from the intended time, so that a stalled server cannot hide behind clients that wait for it.
It refuses to call anything accepted but a 2xx with an order of the style that was asked for; all else is
counted by slug.
Run as `python -m lab.bench.arrivals`: JSON lines, a plan in (a lone client's too), what came of it out.
"""

import asyncio
import contextlib
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import orjson
import uvloop

from lab.bench.connections import Connections, Due
from lab.bench.generator import DRAIN_TIMEOUT_S, cpu_seconds
from lab.bench.intervals import quantiles
from lab.bench.lone import Lone, LonePlan, run_lone
from lab.bench.orders import Origin, PreparedOrder, encode_order, prepare_orders, read_accepted
from lab.bench.wire import Reply

CONNECTIONS = 256  # orders beyond so many in flight wait for one, and that counts as latency
HANDED_IN = 202
LEAD_S = 0.1  # from the last connection to the start

Process = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True)
class OpenPlan:
    """Orders of one style at `rate` a second, for `warm_up_s` and then `measured_s`.

    `arrivals` is how they come: `poisson` from the seed, as strangers do, or `constant`, evenly spaced.
    `processes` are the process ids whose CPU time is wanted, by name; `file` is where each order's row goes.
    `host`, `path` and `token` are for a checkout service of somebody else's; `prefer` is how long to wait.
    """

    port: int
    style: str
    rate: float
    warm_up_s: float
    measured_s: float
    seed: int
    processes: dict[str, int]
    file: str
    host: str = "127.0.0.1"
    path: str = ""
    token: str | None = None
    prefer: str = "respond-async"
    arrivals: Process = "poisson"

    @property
    def origin(self) -> Origin:
        """Where the orders go."""
        return Origin(self.host, self.port, self.path, self.token)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What came of an open plan. `opens_at` and `closes_at`, of the measured time, are in seconds since 1970.

    `due` orders were to leave in all; `handed_in` were answered 202, not finished yet; `lag_ms` is how late
    the generator itself was. `cpu_s` are CPU seconds within the measured time: of the plan's processes, the
    `generator`, and all `others` together. The file holds a JSON array of [order id, intended time in seconds
    since 1970, ack latency in ms, of a member].
    """

    opens_at: float
    closes_at: float
    due: int
    accepted: int
    errors: dict[str, int]
    lag_ms: dict[str, float]
    cpu_s: dict[str, float]
    handed_in: int = 0


class Tally:
    """What has been answered so far: a row for each accepted order, a count for each kind of trouble."""

    def __init__(self, style: str, due: int) -> None:
        self.rows: list[tuple[str, float, float, bool]] = []
        self.errors: Counter[str] = Counter()
        self.handed_in = 0
        self.all_answered = asyncio.Event()
        self.wall_offset_s = time.time() - time.perf_counter()  # to seconds since 1970
        self._style = style
        self._left = due
        self._seen: set[str] = set()
        if due == 0:
            self.all_answered.set()

    def hear(self, due: Due, reply: Reply | None, slug: str | None) -> None:
        """Takes one answer: the reply, or None and what went wrong."""
        took_ms = (time.perf_counter() - due.intended) * 1000
        order_id, problem = (None, slug) if reply is None else read_accepted(reply, self._style)
        if order_id is None:
            self.errors[str(problem)] += 1
        elif order_id in self._seen:
            self.errors["repeated-id"] += 1  # of two keys: one of the two orders is no more
        else:
            self._seen.add(order_id)
            self.rows.append((order_id, due.intended + self.wall_offset_s, took_ms, due.member))
            self.handed_in += reply is not None and reply.status == HANDED_IN
        self._left -= 1
        if self._left == 0:
            self.all_answered.set()


def intended_times(rate: float, total_s: float, seed: int, arrivals: Process = "poisson") -> list[float]:
    """When orders are to leave, in seconds from the start.

    A Poisson process, the same for the same seed; or evenly spaced, which may fall into step with what the
    server does regularly.
    """
    if arrivals == "constant":
        return [(number + 0.5) / rate for number in range(math.ceil(total_s * rate - 0.5))]
    chance = random.Random(seed)  # noqa: S311 - arrival times, not secrets
    times: list[float] = []
    at = chance.expovariate(rate)
    while at < total_s:
        times.append(at)
        at += chance.expovariate(rate)
    return times


async def run_open(plan: OpenPlan, orders: Sequence[PreparedOrder]) -> Arrivals:
    """Runs an open plan to its end: at most its time and half a minute for the last answers.

    Raises OSError if nothing listens.
    """
    times = intended_times(plan.rate, plan.warm_up_s + plan.measured_s, plan.seed, plan.arrivals)
    processes = {**plan.processes, "generator": os.getpid()}
    tally = Tally(plan.style, len(times))
    connections = Connections(tally.hear)
    lags_ms: list[float] = []
    await connections.open(plan.port, CONNECTIONS, plan.host)
    start = time.perf_counter() + LEAD_S
    opens_at = start + plan.warm_up_s

    async def send_all() -> None:
        for number, at in enumerate(times):
            intended = start + at
            await asyncio.sleep(max(intended - time.perf_counter(), 0))  # replies are read even when late
            lags_ms.append((time.perf_counter() - intended) * 1000)
            order = orders[number % len(orders)]
            request = encode_order(plan.origin, plan.style, order.body, plan.prefer)
            connections.send(Due(intended, request, order.member))

    async def measure_cpu() -> dict[str, float]:
        await asyncio.sleep(opens_at - time.perf_counter())
        before = cpu_seconds(processes)
        await asyncio.sleep(opens_at + plan.measured_s - time.perf_counter())
        after = cpu_seconds(processes)
        return {name: max(after[name] - before[name], 0.0) for name in after}

    try:
        cpu_s, _ = await asyncio.gather(measure_cpu(), send_all())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tally.all_answered.wait(), DRAIN_TIMEOUT_S)
    finally:
        connections.close()
    await asyncio.to_thread(Path(plan.file).write_bytes, orjson.dumps(tally.rows))
    opens_wall = opens_at + tally.wall_offset_s
    return Arrivals(
        opens_at=opens_wall,
        closes_at=opens_wall + plan.measured_s,
        due=len(times),
        accepted=len(tally.rows),
        errors=dict(tally.errors),
        lag_ms=quantiles(lags_ms),
        cpu_s=cpu_s,
        handed_in=tally.handed_in,
    )


def main() -> None:
    """Runs the plans that the parent writes, one after another, until it closes our input."""
    orders: dict[int, list[PreparedOrder]] = {}
    for line in sys.stdin:
        told = orjson.loads(line)
        chosen = orders.setdefault(told["seed"], prepare_orders(told["seed"]))
        found: Arrivals | Lone
        if "rate" in told:
            found = uvloop.run(run_open(OpenPlan(**told), chosen))
        else:
            found = uvloop.run(run_lone(LonePlan(**told), chosen))
        sys.stdout.write(orjson.dumps(asdict(found)).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
