"""What one window of one arm comes to, once every service has told what it did. Pure.

Two clocks, both from the intended send time: to the 2xx at the client, and to the last effect that the order
is owed, by the services' own times (taken in the transaction that writes it: that one commit is not in them).
It refuses to leave out an order whose effects never came: it counts as unfinished. Whatever the services
did for nobody's order is in the ledger of the window in which it appeared.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.windows import OVERLOADED
from lab.compare import histograms
from lab.ledger import TROUBLES, Effect, Order, Report, reconcile

MOST_LAG_MS = 5.0
MOST_LAG_SHARE = 0.1  # of the p99 that the lag is in; below 5 ms it is not looked at

LEDGER = ("lost", *(verdict.value for verdict in TROUBLES))

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

    `done` is when each order had all its effects, in seconds since 1970, once the books were read. `early`:
    no effect is late, as the arm says.
    """

    arm: str
    round: int
    plan: OpenPlan
    arrivals: Arrivals
    rows: Sequence[Row]
    costs: Costs = field(default_factory=Costs)
    done: Mapping[str, float] = field(default_factory=dict)
    early: bool = False

    @property
    def began_at(self) -> float:
        """When its first order could leave, in seconds since 1970."""
        return self.arrivals.opens_at - self.plan.warm_up_s


@dataclass(frozen=True, slots=True)
class Window:
    """One arm at one rate for a while; latencies in ms, of orders that were to leave within it.

    `cpu_ms` is CPU time by process for each order completed in it; `others_cpu_share` is what other programs
    used, of one core (None where the arm's own are unknown). `turned_away` counts 503s, `errors` what
    else was not accepted, by slug, `handed_in` 202s. `clamped` latencies were of two minutes or more, and
    count as two minutes.
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
    others_cpu_share: float | None
    histograms: dict[str, str]
    clamped: int = 0
    handed_in: int = 0
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
    def broken(self) -> str | None:
        """Why the arm did not do in it what it promised, if it did not."""
        if not self.ledger.get("balances", False):
            wrong = ", ".join(f"{self.ledger[kind]} {kind}" for kind in LEDGER if self.ledger.get(kind))
            return f"its ledger does not balance ({wrong or 'no service was asked'})"
        return f"{self.unfinished} of its orders were not completed" if self.unfinished else None

    @property
    def trouble(self) -> str | None:
        """Why this window's figures are not to be used, if they are not."""
        if self.broken:
            return self.broken
        if self.refused:
            lacking = f"{self.refused} of {self.due} orders were not accepted"
            return f"{lacking}: its latencies are of the others only"
        return self.lateness

    @property
    def refused(self) -> int:
        """How many orders were not accepted."""
        return self.turned_away + sum(self.errors.values())

    @property
    def lateness(self) -> str | None:
        """How late the generator was, if it was too late for what it measured."""
        lag, p99 = self.generator_lag_ms.get("p99", 0.0), self.ack_ms.get("p99", 0.0)
        if lag > max(MOST_LAG_MS, MOST_LAG_SHARE * p99):
            return f"its generator was {lag:.1f} ms late at p99, too much for an ack p99 of {p99:.1f} ms"
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


def ledgers(
    raws: Sequence[Raw], orders: Mapping[str, Order], effects: Mapping[str, Sequence[Effect]]
) -> list[Report]:
    """The ledger of each window, from the books of the system that served them, one after the other.

    A window has the orders that its clients were told of. What nobody was told of (an order whose reply was
    lost, an effect without an order) is in that of the window in which it appeared.
    """
    told = {row[0]: number for number, raw in enumerate(raws) for row in raw.rows}
    starts = [raw.began_at for raw in raws]

    def owner(order_id: str, at: datetime) -> int:
        known = orders.get(order_id)
        at = at if known is None else known.accepted_at
        return told.get(order_id, max(bisect_right(starts, at.timestamp()) - 1, 0))

    its_orders: list[list[Order]] = [[] for _ in raws]
    its_effects: list[dict[str, list[Effect]]] = [{name: [] for name in effects} for _ in raws]
    for order in orders.values():
        its_orders[owner(order.order_id, order.accepted_at)].append(order)
    for name, found in effects.items():
        for effect in found:
            its_effects[owner(effect.order_id, effect.at)][name].append(effect)
    return [
        reconcile(
            (row[0] for row in raw.rows),
            (replace(order, completed_at=None) for order in known) if raw.early else known,
            done,
        )
        for raw, known, done in zip(raws, its_orders, its_effects, strict=True)
    ]


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
        others_cpu_share=others_s / length_s if cpu_s.keys() - {"generator"} else None,
        histograms={"ack": histograms.encode(ack), "completion": histograms.encode(completion)},
        clamped=histograms.clamped(ack) + histograms.clamped(completion),
        handed_in=raw.arrivals.handed_in,
        ledger=ledger,
    )
