"""Windows of a comparison whose truth is planted: rows, books and a system that answers as it is told."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.compare.arms import Arm
from lab.compare.rig import Load
from lab.compare.windows import Costs, Raw, Row, Window, summarise
from lab.ledger import Effect, Order, Step

OPENS_AT = 1_000_000.0
WARM_UP_S, MEASURED_S = 1.0, 10.0
SERVICES = ("email", "warehouse", "rewards")
BALANCED = {"balances": True, "accepted": 100}
QUANTILES = ("p50", "p90", "p95", "p99", "max", "mean")


def raw(
    rows: list[Row],
    arm: str = "orchestration",
    number: int = 1,
    *,
    opens_at: float = OPENS_AT,
    done: Mapping[str, float] | None = None,
    lag_p99_ms: float = 1.0,
    errors: Mapping[str, int] | None = None,
    costs: Costs | None = None,
) -> Raw:
    """A window of these rows, ten seconds long after a second of warm-up."""
    plan = OpenPlan(1, arm, 100.0, WARM_UP_S, MEASURED_S, 20, {}, "")
    told = Arrivals(
        opens_at=opens_at,
        closes_at=opens_at + MEASURED_S,
        due=len(rows) + sum((errors or {}).values()),
        accepted=len(rows),
        errors=dict(errors or {}),
        lag_ms={"p50": 0.1, "p99": lag_p99_ms, "max": lag_p99_ms},
        cpu_s={"checkout": 0.4, "broker": 0.2, "generator": 0.1, "others": 0.5},
    )
    return Raw(arm, number, plan, told, rows, costs or Costs(), done or {})


def at(seconds: float) -> datetime:
    """A time by the services' clock."""
    return datetime.fromtimestamp(seconds, UTC)


def order(order_id: str, accepted: float, completed: float | None, *, member: bool = True) -> Order:
    """An order as checkout tells of it: completed, or in progress where it has no such time."""
    steps = {name: Step("succeeded" if completed else "pending") for name in SERVICES}
    if not member:
        steps["rewards"] = Step("skipped")
    status = "completed" if completed else "in_progress"
    done = None if completed is None else at(completed)
    return Order(order_id, "orchestration", status, member, done, steps, at(accepted))


def effects(*told: tuple[str, float], services: tuple[str, ...] = SERVICES) -> dict[str, list[Effect]]:
    """The same effects in each of these services, none in the others."""
    found = [Effect(order_id, at(seconds)) for order_id, seconds in told]
    return {name: list(found) if name in services else [] for name in SERVICES}


@cache
def _window() -> Window:
    rows: list[Row] = [(f"o-{n}", OPENS_AT + 1 + n / 100, 1.0, True) for n in range(100)]
    done = {order_id: intended + 0.002 for order_id, intended, _, _ in rows}
    return summarise(raw(rows, done=done), BALANCED)


def window(
    arm: str, number: int, completion_ms: float, *, ack_ms: float = 5.0, cpu_ms: float = 10.0
) -> Window:
    """A window with a hundred orders that all took equally long."""
    return replace(
        _window(),
        arm=arm,
        round=number,
        ack_ms=dict.fromkeys(QUANTILES, ack_ms),
        completion_ms=dict.fromkeys(QUANTILES, completion_ms),
        cpu_ms={"checkout": cpu_ms, "generator": 1.0},
    )


Answer = Callable[[Arm, Load, int], Window]


@dataclass
class FakeBench:
    """A system that is not there: each window is what `answer` says."""

    answer: Answer
    log: list[str]
    pending: list[tuple[Raw, Window]] = field(default_factory=list)

    async def measure(self, arm: Arm, load: Load, number: int, seed: int) -> None:
        self.log.append(f"{arm.name} {number} seed {seed} at {load.rate:.0f}")
        self.pending.append((raw([], arm.name, number), self.answer(arm, load, number)))

    async def reckon(self) -> list[tuple[Raw, Window]]:
        found, self.pending = self.pending, []
        return found


@dataclass
class FakeRig:
    """Starts systems that are not there, and notes in `log` what it was asked for."""

    answer: Answer
    log: list[str] = field(default_factory=list)
    generator_first: bool = True

    @asynccontextmanager
    async def system(
        self, settings: Mapping[str, str], *, fresh: bool, counts: bool = True
    ) -> AsyncIterator[FakeBench]:
        self.log.append("start " + (",".join(settings) or "as it is"))
        yield FakeBench(self.answer, self.log)
        self.log.append("end")

    def target(self, target: Any) -> FakeBench:
        return FakeBench(self.answer, self.log)
