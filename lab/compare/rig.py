"""Where windows are measured: a whole system of our own, or a target of somebody else's.

Before each window the system is quiet, so that no arm pays for another's leftovers; after it the books are
read and reconciled. The generator is a process of its own and outlives the systems.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import orjson

from lab import broker
from lab.audit import as_document
from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.children import BenchError, Child, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S
from lab.bench.orders import Origin
from lab.bench.whole import Whole, whole_system
from lab.client import Patience, open_client
from lab.compare.arms import Arm
from lab.compare.windows import Costs, Raw, Row, Window, completions, ledgers, summarise
from lab.coupling import traffic
from lab.errors import LabError
from lab.ledger import OWED_BY_MEMBERS, Effect
from lab.reading import read_books
from lab.system import CONDUCTOR, HOST
from lab.targets import Target

SLACK_S = 30.0  # on top of a plan's own bounds, before the generator counts as dead
READ_S = 60.0
CHECK_S = 10.0
TARGET_QUIET_S = 60.0
TARGET_POLL_S = 0.5


@dataclass(frozen=True)
class Load:
    """How one window is driven: orders a second, and seconds of warm-up (discarded) and of measuring."""

    rate: float
    warm_up_s: float
    measured_s: float


class Bench(Protocol):
    """Something that can be driven in windows, and read afterwards."""

    async def measure(self, arm: Arm, load: Load, number: int, seed: int) -> None:
        """Measure one window in round `number`, and leave all quiet. Raises `LabError`."""

    async def reckon(self) -> list[tuple[Raw, Window]]:
        """What the windows since the last reckoning come to. Raises `LabError`."""


class Generator:
    """The load generator's process."""

    def __init__(self, child: Child, rows: Path) -> None:
        self._child = child
        self._rows = rows

    async def drive(
        self, arm: Arm, origin: Origin, load: Load, seed: int, processes: Mapping[str, int]
    ) -> tuple[OpenPlan, Arrivals, list[Row]]:
        """Run one window to its end. Raises `BenchError` if nothing was accepted at all."""
        plan = OpenPlan(
            port=origin.port,
            style=arm.style,
            rate=load.rate,
            warm_up_s=load.warm_up_s,
            measured_s=load.measured_s,
            seed=seed,
            processes=dict(processes),
            file=str(self._rows),
            host=origin.host,
            path=origin.path,
            token=origin.token,
            prefer=arm.prefer,
        )
        bound_s = load.warm_up_s + load.measured_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLACK_S
        arrivals = Arrivals(**await self._child.ask(orjson.dumps(asdict(plan)), bound_s))
        rows = [(row[0], row[1], row[2], row[3]) for row in orjson.loads(self._rows.read_bytes())]
        if not rows:
            problems = ", ".join(arrivals.errors) or "no order was due"
            raise BenchError(f"{arm.name} accepted no order: {problems}")
        return plan, arrivals, rows


class SystemBench:
    """A system of our own. `fresh`: it serves one arm alone, so that its memory is that arm's."""

    def __init__(
        self, whole: Whole, generator: Generator, client: httpx.AsyncClient, *, fresh: bool, counts: bool
    ) -> None:
        self._whole = whole
        self._generator = generator
        self._client = client
        self._fresh = fresh
        self._counts = counts
        self._raws: list[Raw] = []
        self._balanced: list[bool] = []  # the ledgers of those that are reckoned

    async def measure(self, arm: Arm, load: Load, number: int, seed: int) -> None:
        """One window. Raises `BenchError`, naming it, if a process died meanwhile."""
        try:
            self._raws.append(await self._measure(arm, load, number, seed))
            await self._whole.check_alive()
        except BenchError as error:
            why = await self._death() or str(error)
            raise BenchError(f"{arm.name}, round {number}: {why}") from error

    async def _measure(self, arm: Arm, load: Load, number: int, seed: int) -> Raw:
        before = await self._count()
        origin = Origin(HOST, self._whole.system.port(CONDUCTOR))
        plan, arrivals, rows = await self._generator.drive(arm, origin, load, seed, self._whole.pids)
        memory_mb = self._whole.memory_mb() if self._fresh else {}
        await self._whole.settle(self._client)
        costs = _costs(before, await self._count(), len(rows), memory_mb)
        return Raw(arm.name, number, plan, arrivals, rows, costs, early=arm.early)

    async def _death(self) -> str | None:
        """What died, if anything did: whatever else went wrong comes of it."""
        try:
            await self._whole.check_alive()
        except LabError as error:
            return str(error)
        return None

    async def reckon(self) -> list[tuple[Raw, Window]]:
        """Read the books of the quiet system; each window has the ledger of its own orders."""
        promised = {row[0] for raw in self._raws for row in raw.rows}
        orders, effects = await read_books(self._client, self._whole.system, promised, Patience(READ_S))
        found = ledgers(self._raws, orders, effects)
        known = len(self._balanced)
        for raw, report, balanced in zip(self._raws, found, self._balanced, strict=False):
            if balanced and not report.balances:
                raise BenchError(f"{raw.arm}, round {raw.round}: an order of it was acted on again later")
        self._balanced += [report.balances for report in found[known:]]
        return _reckoned(self._raws[known:], effects, OWED_BY_MEMBERS, map(as_document, found[known:]))

    async def _count(self) -> traffic.Counts | None:
        """None if nothing is to be counted, or can be: messages still wait, which the ledger tells of."""
        if not self._counts:
            return None
        try:
            async with broker.connect(self._whole.system) as jetstream:
                return await traffic.count(self._client, self._whole.system, jetstream)
        except LabError:
            return None


class TargetBench:
    """A target: it is driven from outside, and what it costs its machine is not known."""

    def __init__(self, target: Target, generator: Generator, client: httpx.AsyncClient) -> None:
        self._target = target
        self._generator = generator
        self._client = client
        self._pending: list[Raw] = []

    async def measure(self, arm: Arm, load: Load, number: int, seed: int) -> None:
        """One window; then wait until its effects are there, for a minute at most. Raises `LabError`."""
        origin = self._target.origin
        plan, arrivals, rows = await self._generator.drive(arm, origin, load, seed, {})
        self._pending.append(Raw(arm.name, number, plan, arrivals, rows))
        with contextlib.suppress(TimeoutError):  # what is not there then, the ledger tells of
            async with asyncio.timeout(TARGET_QUIET_S):
                while True:
                    if len(completions(rows, await self._effects(), self._members_only)) == len(rows):
                        return
                    await asyncio.sleep(TARGET_POLL_S)

    async def reckon(self) -> list[tuple[Raw, Window]]:
        """Read its effects: each order that it accepted is to have each one exactly once."""
        effects = await self._effects()
        raws, self._pending = self._pending, []
        found = [self._target.reconcile({row[0]: row[3] for row in raw.rows}, effects) for raw in raws]
        return _reckoned(raws, effects, self._members_only, found)

    async def _effects(self) -> dict[str, list[Effect]]:
        return await self._target.read_effects(self._client, Patience(READ_S))

    @property
    def _members_only(self) -> frozenset[str]:
        return frozenset(name for name, at in self._target.effects.items() if at.members_only)


class Rig:
    """Starts systems for measuring, one at a time, each in a folder of its own.

    `generator_first`: the generator runs at a real-time priority.
    """

    def __init__(
        self, folder: Path, child: Child, client: httpx.AsyncClient, *, generator_first: bool
    ) -> None:
        self._folder = folder
        self._generator = Generator(child, folder / "rows.json")
        self._client = client
        self.generator_first = generator_first
        self._systems = 0

    @asynccontextmanager
    async def system(
        self, settings: Mapping[str, str], *, fresh: bool, counts: bool = True
    ) -> AsyncIterator[SystemBench]:
        """A new system under these settings, ended on the way out."""
        self._systems += 1
        own = self._folder / f"system-{self._systems}"
        own.mkdir()
        async with whole_system(own, "null", settings) as whole:
            yield SystemBench(whole, self._generator, self._client, fresh=fresh, counts=counts)
        await asyncio.to_thread(shutil.rmtree, own, ignore_errors=True)

    async def check(self, target: Target) -> None:
        """Raise `LabError` unless the target is there, before anything is measured beside it."""
        await target.check(self._client, Patience(CHECK_S))

    def target(self, target: Target) -> TargetBench:
        """A target, which runs already."""
        return TargetBench(target, self._generator, self._client)


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """A rig with its data in `folder`. Raises `LabError`."""
    async with AsyncExitStack() as stack:
        log = folder / "generator.log"
        child = await stack.enter_async_context(
            running("load generator", "lab.bench.arrivals", env={}, log=log, talks=True)
        )
        first = _put_first(child.process.pid)
        client = await stack.enter_async_context(open_client())
        yield Rig(folder, child, client, generator_first=first)


def _put_first(pid: int) -> bool:
    """Let the generator go before what it measures, as a client on a machine of its own would.

    It takes Linux and rights that a person may not have: without them its lag is larger, and is reported.
    """
    if sys.platform != "linux":
        return False
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


def _reckoned(
    raws: Iterable[Raw],
    effects: Mapping[str, Sequence[Effect]],
    members_only: frozenset[str],
    found: Iterable[dict[str, Any]],
) -> list[tuple[Raw, Window]]:
    read = [replace(raw, done=completions(raw.rows, effects, members_only)) for raw in raws]
    return [(raw, summarise(raw, ledger)) for raw, ledger in zip(read, found, strict=True)]


def _costs(
    before: traffic.Counts | None, after: traffic.Counts | None, orders: int, memory_mb: Mapping[str, float]
) -> Costs:
    if before is None or after is None:
        return Costs(memory_mb)
    calls = sum(after.calls.values()) - sum(before.calls.values())
    messages = sum(after.streams.values()) - sum(before.streams.values())
    deliveries = sum(each.delivered - before.delivered(each) for each in after.consumers)
    return Costs(memory_mb, calls / orders, messages / orders, deliveries / orders)
