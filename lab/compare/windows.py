"""What one window of one arm comes to, once every service has told what it did. Pure.

Two clocks, both from the intended send time: to the 2xx at the client, and to the last effect that the order
is owed, by the services' own times. It refuses to leave out an order whose effects never came: it counts as
unfinished.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.windows import OVERLOADED
from lab.compare import histograms
from lab.ledger import Effect

MOST_LAG_MS = 5.0
MOST_LAG_SHARE = 0.1

Row = tuple[str, float, float, bool]  # order id, intended time in s since 1970, ack latency in ms, a member's


@dataclass(frozen=True, slots=True)
class Costs:
    """What a window's orders cost: memory in MB by process, calls, events and deliveries for each order."""

    memory_mb: Mapping[str, float] = field(default_factory=dict)
    calls: float | None = None
    messages: float | None = None
    deliveries: float | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """A window as the generator tells of it: a row for every accepted order, warm-up included.

    `done` is when each order had all its effects, in seconds since 1970, once the books were read.
    """

    arm: str
    round: int
    plan: OpenPlan
    arrivals: Arrivals
    rows: Sequence[Row]
    costs: Costs = field(default_factory=Costs)
    done: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """One arm at one rate for a while; latencies in ms, of orders that were to leave within it.

    `cpu_ms` is CPU time by process for each order completed in it. `turned_away` counts 503s, `errors` what
    else was not accepted, by slug.
    """

    arm: str
    round: int
    offered_rate: float
    measured_s: float
    due: int
    accepted: int
    turned_away: int
    errors: dict[str, int]
    completed: int
    unfinished: int
    completed_rate: float
    ack_ms: dict[str, float]
    completion_ms: dict[str, float]
    cpu_ms: dict[str, float]
    costs: Costs
    generator_lag_ms: dict[str, float]
    others_cpu_share: float
    histograms: dict[str, str]
    ledger: dict[str, Any] = field(default_factory=dict)

    @property
    def system_cpu_ms(self) -> float | None:
        """CPU time of the whole system for each order, the generator's left out; None if it is not known."""
        spent = [each for name, each in self.cpu_ms.items() if name != "generator"]
        return sum(spent) if spent else None

    @property
    def memory_mb(self) -> float | None:
        """The whole system's memory; None if it is not known."""
        return sum(self.costs.memory_mb.values()) if self.costs.memory_mb else None

    @property
    def trouble(self) -> str | None:
        """Why this window's figures are not to be used, if they are not."""
        lag, p99 = self.generator_lag_ms.get("p99", 0.0), self.completion_ms.get("p99", 0.0)
        if not self.ledger.get("balances", False):
            return "its ledger does not balance"
        if self.unfinished:
            return f"{self.unfinished} of its orders were not completed"
        if lag > MOST_LAG_MS and lag > MOST_LAG_SHARE * p99:
            return f"its generator was {lag:.0f} ms late at p99: it was the bottleneck"
        return None

    def as_document(self) -> dict[str, Any]:
        """The window as plain JSON values."""
        told = asdict(self)
        costs = told.pop("costs")
        return {
            **told,
            "memory_mb": costs["memory_mb"],
            "calls_per_order": costs["calls"],
            "messages_per_order": costs["messages"],
            "deliveries_per_order": costs["deliveries"],
            "system_cpu_ms": self.system_cpu_ms,
            "trouble": self.trouble,
        }


def completions(
    rows: Iterable[Row], effects: Mapping[str, Iterable[Effect]], members_only: frozenset[str]
) -> dict[str, float]:
    """When each of these orders had all the effects that it is owed, in seconds since 1970.

    An order that lacks one is not in it. `members_only` are the services that other customers' orders owe
    nothing.
    """
    times = {
        name: {effect.order_id: effect.at.timestamp() for effect in found} for name, found in effects.items()
    }
    done = {}
    for order_id, _, _, member in rows:
        owed = [at.get(order_id) for name, at in times.items() if member or name not in members_only]
        if owed and None not in owed:
            done[order_id] = max(each for each in owed if each is not None)
    return done


def summarise(raw: Raw, ledger: dict[str, Any]) -> Window:
    """The window's figures, once the books were read."""
    done = raw.done
    opens_at, closes_at = raw.arrivals.opens_at, raw.arrivals.closes_at
    length_s = raw.plan.measured_s
    within = [row for row in raw.rows if opens_at <= row[1] < closes_at]
    ends = [done.get(row[0]) for row in raw.rows]
    finished = sum(end is not None and opens_at <= end < closes_at for end in ends)
    ack = histograms.record(row[2] for row in within)
    completion = histograms.record(
        (done[order_id] - intended) * 1000 for order_id, intended, _, _ in within if order_id in done
    )
    errors = dict(raw.arrivals.errors)
    turned_away = errors.pop(OVERLOADED, 0)
    cpu_s = dict(raw.arrivals.cpu_s)
    others_s = cpu_s.pop("others", 0.0)
    known = finished and cpu_s.keys() - {"generator"}
    return Window(
        arm=raw.arm,
        round=raw.round,
        offered_rate=raw.plan.rate,
        measured_s=length_s,
        due=raw.arrivals.due,
        accepted=raw.arrivals.accepted,
        turned_away=turned_away,
        errors=errors,
        completed=sum(end is not None for end in ends),
        unfinished=ends.count(None),
        completed_rate=finished / length_s,
        ack_ms=histograms.summary(ack),
        completion_ms=histograms.summary(completion),
        cpu_ms={name: spent * 1000 / finished for name, spent in cpu_s.items()} if known else {},
        costs=raw.costs,
        generator_lag_ms=raw.arrivals.lag_ms,
        others_cpu_share=others_s / length_s,
        histograms={"ack": histograms.encode(ack), "completion": histograms.encode(completion)},
        ledger=ledger,
    )
