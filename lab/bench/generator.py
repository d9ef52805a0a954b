"""The load generator: closed-loop keep-alive clients, cheap enough not to be what is measured.

Each client sends its next order when the last is answered, so this measures a conductor at a known
concurrency; it says nothing about the queues of an open arrival process, which is another bench's question.
It refuses to call anything a success but a 201 whose order is `completed`; all else is counted by slug.
Run as `python -m lab.bench.generator`: JSON lines, a plan in, a measurement out.
"""

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import cast

import orjson
import psutil
import uvloop

from lab.bench.intervals import quantiles
from lab.bench.orders import PreparedOrder, prepare_orders
from lab.bench.wire import MalformedMessage, Reply, ReplyReader, encode_request

CONNECT_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 35.0  # a conductor may wait up to 30 s for its services
LARGEST_ERROR_COUNT = 100  # by one client; then it gives up rather than spin


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement: where to, by how many clients, how long (`warm_up_s` of it discarded).

    `processes` are the process ids whose CPU time is wanted, by name.
    """

    arm: str
    port: int
    clients: int
    warm_up_s: float
    measured_s: float
    seed: int
    processes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came of a plan. `orders` and `members` count everything answered 201 and completed, warm-up
    included.

    `rate` is completions a second within the measured time; latencies are in ms, of orders sent within it;
    `cpu_s` is CPU seconds spent within it: by the plan's processes, the `generator`, all `others` together.
    """

    arm: str
    clients: int
    orders: int
    members: int
    repeated_ids: int
    errors: dict[str, int]
    measured: int
    measured_s: float
    rate: float
    latency_ms: dict[str, float]
    cpu_s: dict[str, float]


@dataclass(slots=True)
class Tally:
    """What the clients of one measurement have seen so far. Times are of `time.perf_counter`, in seconds."""

    seen: set[str]
    opens_at: float
    closes_at: float
    orders: int = 0
    members: int = 0
    repeated_ids: int = 0
    measured: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def record(self, reply: Reply, member: bool, sent_at: float, now: float) -> str | None:
        """Counts one reply; the slug of what is wrong with it, or None."""
        problem = self._check(reply)
        if problem is not None:
            self.errors[problem] += 1
            return problem
        self.orders += 1
        self.members += member
        if self.opens_at <= now < self.closes_at:
            self.measured += 1
        if self.opens_at <= sent_at < self.closes_at:
            self.latencies_ms.append((now - sent_at) * 1000)
        return None

    def _check(self, reply: Reply) -> str | None:
        if reply.status != 201:
            return f"status-{reply.status}"
        try:
            checkout = orjson.loads(reply.body)
            order_id, status = checkout["order_id"], checkout["status"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return "not-a-checkout"
        if status != "completed":
            return f"order-{status}"
        if order_id in self.seen:
            self.repeated_ids += 1
        self.seen.add(order_id)
        return None


class Client(asyncio.Protocol):
    """One client: sends an order, waits for its reply, sends the next, until the measurement closes."""

    def __init__(self, tally: Tally, requests: list[tuple[bytes, bool]], first: int) -> None:
        self.idle = asyncio.get_running_loop().create_future()
        self._tally = tally
        self._requests = itertools.cycle(requests[first:] + requests[:first])
        self._reader = ReplyReader()
        self._transport: asyncio.Transport | None = None
        self._member: bool | None = None
        self._sent_at = 0.0
        self._errors = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            replies = self._reader.feed(data)
        except MalformedMessage:
            self._fail("malformed-reply")
            return
        for reply in replies:
            now = time.perf_counter()
            if self._member is None:
                self._fail("unasked-reply")
                return
            if self._tally.record(reply, self._member, self._sent_at, now) is not None:
                self._errors += 1
            self._member = None
            if not reply.keep_alive:
                self._fail("connection-closed")
            elif now < self._tally.closes_at and self._errors < LARGEST_ERROR_COUNT:
                self._send()
            else:
                self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.idle.done():
            self._fail("connection-lost")

    def close(self) -> None:
        """Ends the client; an order still without an answer is counted as such."""
        if self._member is not None:
            self._member = None
            self._tally.errors["unanswered"] += 1
        if not self.idle.done():
            self.idle.set_result(None)
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        request, self._member = next(self._requests)
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def _fail(self, problem: str) -> None:
        self._tally.errors[problem] += 1
        self._member = None
        self.close()


def cpu_seconds(processes: dict[str, int]) -> dict[str, float]:
    """CPU seconds so far of each process, with all its threads, and of all `others` of the machine."""
    spent = {}
    for name, pid in processes.items():
        times = psutil.Process(pid).cpu_times()
        spent[name] = times.user + times.system
    machine = psutil.cpu_times()._asdict()
    # Linux counts guests' time as user time too; stolen time stays in: it is missing here all the same.
    unused = sum(machine.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
    spent["others"] = sum(machine.values()) - unused - sum(spent.values())
    return spent


async def measure(plan: Plan, orders: Sequence[PreparedOrder], seen: set[str]) -> Measurement:
    """Runs one plan to its end: at most the plan's time and half a minute for the last answers.

    `seen` are the order ids answered so far by this arm; new ones are added. Raises OSError if nothing
    listens.
    """
    requests = [(encode_request("POST", "/checkouts", plan.port, o.body), o.member) for o in orders]
    processes = {**plan.processes, "generator": os.getpid()}
    opens_at = time.perf_counter() + plan.warm_up_s
    tally = Tally(seen, opens_at, opens_at + plan.measured_s)
    clients = await _connect(plan, tally, requests)
    try:
        await asyncio.sleep(opens_at - time.perf_counter())
        before = cpu_seconds(processes)
        await asyncio.sleep(tally.closes_at - time.perf_counter())
        after = cpu_seconds(processes)
        await asyncio.wait([client.idle for client in clients], timeout=DRAIN_TIMEOUT_S)
    finally:
        for client in clients:
            client.close()
    return Measurement(
        arm=plan.arm,
        clients=plan.clients,
        orders=tally.orders,
        members=tally.members,
        repeated_ids=tally.repeated_ids,
        errors=dict(tally.errors),
        measured=tally.measured,
        measured_s=plan.measured_s,
        rate=tally.measured / plan.measured_s,
        latency_ms=quantiles(tally.latencies_ms),
        cpu_s={name: max(after[name] - before[name], 0.0) for name in after},
    )


async def _connect(plan: Plan, tally: Tally, requests: list[tuple[bytes, bool]]) -> list[Client]:
    stride = max(len(requests) // plan.clients, 1)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        return [
            await _open(Client(tally, requests, number * stride % len(requests)), plan.port)
            for number in range(plan.clients)
        ]


async def _open(client: Client, port: int) -> Client:
    await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
    return client


def main() -> None:
    """Runs the plans that the parent writes, one after another, until it closes our input."""
    orders: dict[int, list[PreparedOrder]] = {}
    seen: dict[str, set[str]] = {}
    for line in sys.stdin:
        plan = Plan(**orjson.loads(line))
        if plan.seed not in orders:
            orders[plan.seed] = prepare_orders(plan.seed)
        result = uvloop.run(measure(plan, orders[plan.seed], seen.setdefault(plan.arm, set())))
        sys.stdout.write(orjson.dumps(asdict(result)).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
