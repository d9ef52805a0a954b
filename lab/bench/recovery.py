"""The recovery bench: how long a conductor that was killed takes for what it had accepted.

In its first life the stub services are not there: nobody listens at their ports. It accepts real orders, all
of which stay unfinished, under settings of that life alone (`first_life`): as many first passes as there are
orders, one try for each call, a long pause after it. Then it is killed by SIGKILL, the stubs are started, and
so is the conductor, anew, on the same database and with its own settings but for the stubs' addresses.
It refuses a life that did not leave every order unfinished, and reconciles each one afterwards.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson

from lab.bench.arms import DUET, Arm, database_of, durable
from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.children import BenchError, Child, free_ports, running, wait_ready
from lab.bench.closed import START_TIMEOUT_S
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.goals import ORCHESTRATION
from lab.bench.setting import Setting, describe
from lab.bench.stored import COMPLETED, Stored, count_unfinished, read_stored
from lab.bench.stub import SERVICES

ACCEPT_RATE = 500.0  # orders offered a second in the first life: slow machines keep up with it
SLACK_S = 30.0
KILL_TIMEOUT_S = 10.0
TELL_TIMEOUT_S = 20.0
POLL_S = 0.1
LEAST_RATE = 20.0  # orders a second: the bound of the wait for all to be completed, on top of ...
RESTART_S = 60.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: `rounds` recoveries from `orders` unfinished orders each."""

    orders: int
    rounds: int
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many steps that makes: each round has an accept and a recovery."""
        return self.rounds * 2


@dataclass(frozen=True, slots=True)
class Recovery:
    """One recovery; times in seconds. `rate` is orders a second from the first completion to the last.

    `ready_s` is from the start of the new process until it was ready, `from_start_s` and `from_ready_s` until
    the last order was completed. `repeats` are the calls by service beyond one for each order that it is
    owed, `problems` what does not add up.
    """

    orders: int
    ready_s: float
    from_start_s: float
    from_ready_s: float
    rate: float
    repeats: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found, a recovery a round."""

    setting: Setting
    shape: Shape
    recoveries: list[Recovery]

    @property
    def passed(self) -> bool:
        """Whether every ledger balances; how long it may take has no goal."""
        return not any(each.problems for each in self.recoveries)


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next. Raises BenchError."""
    setting = await asyncio.to_thread(describe, folder)
    advance("starting")
    recoveries = []
    log = folder / "generator.log"
    async with running("load generator", "lab.bench.arrivals", env={}, log=log, talks=True) as generator:
        for number in range(shape.rounds):
            own = folder / f"round-{number + 1}"
            own.mkdir()
            advance(f"round {number + 1} of {shape.rounds}: accepting {shape.orders:,} orders")
            accepted = await _accept_and_kill(shape, own, generator)
            advance(f"round {number + 1} of {shape.rounds}: recovering")
            recoveries.append(await _recover(own, accepted))
            shutil.rmtree(own)
    return Outcome(setting, shape, recoveries)


def first_life(orders: int) -> dict[str, str]:
    """The settings under which a conductor accepts so many orders that it can finish none of."""
    return {
        "CHECKOUT_MAX_FIRST_PASSES": str(orders),
        "CHECKOUT_MAX_LATER_PASSES": "1",
        "CHECKOUT_CALL_MAX_ATTEMPTS": "1",
        "CHECKOUT_RESUME_MIN_S": "600",
    }


async def _accept_and_kill(shape: Shape, folder: Path, generator: Child) -> dict[str, bool]:
    """Which orders the clients were told of, and whether a member's; all are unfinished in the database."""
    port, *nowhere = free_ports(1 + len(SERVICES))
    away = dict(zip(SERVICES, nowhere, strict=True))
    async with durable(DUET, port, away, folder, first_life(shape.orders)) as arm:
        await wait_ready(arm.child, arm.port)
        accepted = await _place(shape, folder, generator, arm)
        arm.child.process.kill()
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await arm.child.process.wait()
    left = read_stored(database_of(DUET, folder))
    finished = sum(each.status == COMPLETED for each in left.values())
    if finished or left.keys() != accepted.keys():
        raise BenchError(f"of {len(accepted)} accepted orders {len(left)} are stored, {finished} completed")
    return accepted


async def _place(shape: Shape, folder: Path, generator: Child, arm: Arm) -> dict[str, bool]:
    rows = folder / "rows.json"
    plan = OpenPlan(
        port=arm.port,
        style=ORCHESTRATION,
        rate=ACCEPT_RATE,
        warm_up_s=0.0,
        measured_s=shape.orders / ACCEPT_RATE,
        seed=shape.seed,
        processes={},
        file=str(rows),
        arrivals="constant",
    )
    bound_s = plan.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
    arrivals = Arrivals(**await generator.ask(orjson.dumps(asdict(plan)), bound_s))
    if arrivals.errors or arrivals.accepted != shape.orders:
        why = ", ".join(f"{count} {slug}" for slug, count in arrivals.errors.items())
        raise arm.child.trouble(f"accepted {arrivals.accepted} of {shape.orders} orders ({why})")
    return {row[0]: row[3] for row in orjson.loads(rows.read_bytes())}


async def _recover(folder: Path, accepted: Mapping[str, bool]) -> Recovery:
    path = database_of(DUET, folder)
    log = folder / "stub.log"
    async with running("stub services", "lab.bench.remembering", env={}, log=log, talks=True) as stub:
        ports = await stub.ask(b"", START_TIMEOUT_S)
        [port] = free_ports(1)
        started_at = time.time()
        async with durable(DUET, port, ports, folder, {}) as arm:
            bound_s = RESTART_S + len(accepted) / LEAST_RATE
            ready_at, _ = await asyncio.gather(_ready_at(arm), _all_finished(arm, path, bound_s))
        file = folder / "told.json"
        await stub.ask(str(file).encode(), TELL_TIMEOUT_S)
    told = orjson.loads(file.read_bytes())
    return reckon(accepted, read_stored(path), told, started_at, ready_at)


async def _ready_at(arm: Arm) -> float:
    await wait_ready(arm.child, arm.port)
    return time.time()


async def _all_finished(arm: Arm, path: Path, bound_s: float) -> None:
    """Reads the database from outside, so that asking costs the conductor nothing."""
    deadline = time.monotonic() + bound_s
    while left := await asyncio.to_thread(count_unfinished, path):
        if arm.child.process.returncode is not None:
            raise arm.child.trouble(f"ended with exit code {arm.child.process.returncode}")
        if time.monotonic() > deadline:
            raise arm.child.trouble(f"left {left} orders unfinished {bound_s:.0f} s after its start")
        await asyncio.sleep(POLL_S)


def reckon(
    accepted: Mapping[str, bool],
    stored: Mapping[str, Stored],
    told: Mapping[str, Mapping[str, int]],
    started_at: float,
    ready_at: float,
) -> Recovery:
    """What one recovery comes to. `accepted` says by order id whether it is a member's.

    `told` are calls by service and order id; times are seconds since 1970.
    """
    ends = [each.completed_at for each in stored.values() if each.completed_at is not None]
    last = max(ends, default=ready_at)
    between_s = last - min(ends, default=last)
    problems, repeats = [], {}
    unfinished = sum(stored[each].status != COMPLETED for each in accepted.keys() & stored.keys())
    lost, unexpected = len(accepted.keys() - stored.keys()), len(stored.keys() - accepted.keys())
    for count, what in ((lost, "lost"), (unexpected, "unexpected"), (unfinished, "not completed")):
        if count:
            problems.append(f"{count} orders are {what}")
    for service in SERVICES:
        owed = {each for each, member in accepted.items() if member or service != "rewards"}
        calls = told.get(service, {})
        repeats[service] = sum(count - 1 for count in calls.values())
        if missing := len(owed - calls.keys()):
            problems.append(f"{service} was never told of {missing} orders")
        if strangers := len(calls.keys() - owed):
            problems.append(f"{service} was told of {strangers} orders that it is owed nothing of")
    return Recovery(
        orders=len(accepted),
        ready_s=ready_at - started_at,
        from_start_s=last - started_at,
        from_ready_s=max(last - ready_at, 0.0),
        rate=len(ends) / between_s if between_s else 0.0,
        repeats=repeats,
        problems=problems,
    )
