"""What a window on the whole system comes to, once the books tell when each order was completed. Pure.

There are two clocks, both from the order's intended time: to the 2xx at the client, by the generator's clock,
and to `completed_at` in checkout's books, when it heard of the last effect: no effect is later, or the ledger
does not balance.
It refuses to leave out an order that was never completed: it counts as unfinished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.bench.arrivals import Arrivals, OpenPlan
from lab.bench.intervals import quantiles
from lab.system import Mail

OVERLOADED = "status-503"

Row = tuple[str, float, float]  # order id, intended time in seconds since 1970, ack latency in ms


@dataclass(frozen=True, slots=True)
class Raw:
    """A window as the generator tells of it, with a row for every accepted order, warm-up included.

    `undelivered` is how many mails waited for delivery when it was over.
    """

    load: str
    round: int
    plan: OpenPlan
    arrivals: Arrivals
    rows: Sequence[Row]
    undelivered: int


@dataclass(frozen=True, slots=True)
class Window:
    """One style at one rate for a while. Latencies, in ms, are of orders that were to leave within it.

    Rates are a second, of what happened within it. `cpu_ms` is CPU time by process, for each order completed
    in it; `others_cpu_share` is what foreign processes used, of one core. `drain_s` is how long after it the
    last of its orders was completed. `turned_away` counts orders that were too many at that rate (503), and
    is no trouble; `errors` counts whatever else was not accepted, by slug.
    """

    mail: Mail
    style: str
    load: str
    round: int
    offered_rate: float
    measured_s: float
    due: int
    accepted: int
    turned_away: int
    unfinished: int
    errors: dict[str, int]
    accepted_rate: float
    completed_rate: float
    ack_ms: dict[str, float]
    completion_ms: dict[str, float]
    drain_s: float
    cpu_ms: dict[str, float]
    others_cpu_share: float
    generator_lag_ms: dict[str, float]
    undelivered: int

    @property
    def system_cpu_ms(self) -> float:
        """CPU time of the whole system for each order, the generator's left out."""
        return sum(spent for name, spent in self.cpu_ms.items() if name != "generator")


@dataclass(frozen=True, slots=True)
class Alone:
    """A lone client's orders of one style, over all rounds; `completion_ms` is until its 201."""

    mail: Mail
    style: str
    orders: int
    errors: dict[str, int]
    completion_ms: dict[str, float]


def summarise(mail: Mail, raw: Raw, completed: Mapping[str, float | None]) -> Window:
    """The window's figures; `completed` tells by order id when it was completed, in seconds since 1970."""
    opens_at, closes_at, length_s = raw.arrivals.opens_at, raw.arrivals.closes_at, raw.plan.measured_s
    ends = [completed.get(order_id) for order_id, _, _ in raw.rows]
    acked = sum(opens_at <= intended + ack_ms / 1000 < closes_at for _, intended, ack_ms in raw.rows)
    done = sum(end is not None and opens_at <= end < closes_at for end in ends)
    within = [
        (intended, ack_ms, end)
        for (_, intended, ack_ms), end in zip(raw.rows, ends, strict=True)
        if opens_at <= intended < closes_at
    ]
    errors = dict(raw.arrivals.errors)
    turned_away = errors.pop(OVERLOADED, 0)
    cpu_s = dict(raw.arrivals.cpu_s)
    others_s = cpu_s.pop("others")
    return Window(
        mail=mail,
        style=raw.plan.style,
        load=raw.load,
        round=raw.round,
        offered_rate=raw.plan.rate,
        measured_s=length_s,
        due=raw.arrivals.due,
        accepted=raw.arrivals.accepted,
        turned_away=turned_away,
        unfinished=ends.count(None),
        errors=errors,
        accepted_rate=acked / length_s,
        completed_rate=done / length_s,
        ack_ms=quantiles([ack_ms for _, ack_ms, _ in within]),
        completion_ms=quantiles([(end - intended) * 1000 for intended, _, end in within if end is not None]),
        drain_s=max([0.0, *(end - closes_at for end in ends if end is not None)]),
        cpu_ms={name: spent * 1000 / done for name, spent in cpu_s.items()} if done else {},
        others_cpu_share=others_s / length_s,
        generator_lag_ms=raw.arrivals.lag_ms,
        undelivered=raw.undelivered,
    )
