"""Measurements by closed-loop clients on stub services, as the benches of the conductor make them.

It keeps an account of each arm beside them: what its clients were told, what the stubs were asked meanwhile.
It refuses a measurement in which an arm ended, or completed nothing.
"""

import statistics
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import orjson

from lab.bench.arms import Arm
from lab.bench.children import Child, fetch, running
from lab.bench.generator import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S, Measurement, Plan
from lab.bench.ledger import Account
from lab.bench.stub import SERVICES

CEILING = "ceiling"  # the generator against the stub itself
START_TIMEOUT_S = 20.0
SLOWEST_MACHINE_S = 10.0  # on top of a plan's own bounds, before the generator counts as dead


class ClosedLoop:
    """The measurements of a run so far in the order in which they were made, and the accounts by arm.

    `ports` are the stub services' by name.
    """

    def __init__(
        self,
        stub: Child,
        ports: Mapping[str, int],
        generator: Child,
        *,
        warm_up_s: float,
        measured_s: float,
        seed: int,
    ) -> None:
        self.ports = ports
        self.measurements: list[Measurement] = []
        self.accounts: dict[str, Account] = {}
        self._stub = stub
        self._generator = generator
        self._warm_up_s = warm_up_s
        self._measured_s = measured_s
        self._seed = seed

    async def measure_ceiling(self, clients: int) -> None:
        """How fast the generator is where nobody conducts. Raises BenchError."""
        await self._measure(CEILING, self.ports["email"], clients, {})

    async def measure(self, arm: Arm, clients: int) -> Measurement:
        """One measurement of an arm. Raises BenchError."""
        before = await self._calls()
        processes = {"conductor": arm.child.process.pid, "stubs": self._stub.process.pid}
        measurement = await self._measure(arm.name, arm.port, clients, processes)
        after = await self._calls()
        calls = {name: after[name] - before[name] for name in SERVICES}
        self.accounts.setdefault(arm.name, Account()).enter(measurement, calls)
        if arm.child.process.returncode is not None:
            raise arm.child.trouble(f"ended with exit code {arm.child.process.returncode}")
        if not measurement.measured:
            problems = ", ".join(measurement.errors) or "no answer in time"
            raise arm.child.trouble(f"completed no order with {clients} clients: {problems}")
        return measurement

    async def _measure(self, arm: str, port: int, clients: int, processes: dict[str, int]) -> Measurement:
        plan = Plan(arm, port, clients, self._warm_up_s, self._measured_s, self._seed, processes)
        own_s = plan.warm_up_s + plan.measured_s
        bound_s = own_s + CONNECT_TIMEOUT_S + DRAIN_TIMEOUT_S + SLOWEST_MACHINE_S
        measurement = Measurement(**await self._generator.ask(orjson.dumps(asdict(plan)), bound_s))
        self.measurements.append(measurement)
        return measurement

    async def _calls(self) -> dict[str, int]:
        counts = orjson.loads((await fetch(self.ports["email"], "/counts")).body)
        return {name: counts.get(name, 0) for name in SERVICES}


def others_share(measurements: Iterable[Measurement]) -> float:
    """The share of one core that processes foreign to the bench used, median over the measurements."""
    return statistics.median(m.cpu_s["others"] / m.measured_s for m in measurements if m.arm != CEILING)


@asynccontextmanager
async def closed_loop(
    folder: Path, *, warm_up_s: float, measured_s: float, seed: int
) -> AsyncIterator[ClosedLoop]:
    """Stub services and a generator that measures for `measured_s`, after `warm_up_s`; ended on the way out.

    Their logs are in `folder`. Raises BenchError.
    """
    async with (
        running("stub services", "lab.bench.stub", env={}, log=folder / "stub.log", talks=True) as stub,
        running(
            "load generator", "lab.bench.generator", env={}, log=folder / "generator.log", talks=True
        ) as generator,
    ):
        ports = await stub.ask(b"", START_TIMEOUT_S)
        yield ClosedLoop(stub, ports, generator, warm_up_s=warm_up_s, measured_s=measured_s, seed=seed)
