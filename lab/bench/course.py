"""What became of orders over time, while a system had too much to do and afterwards. Pure.

Times are in seconds since 1970, and an order counts from when it was to leave. It refuses to call normal what
is only quiet: an order that was turned away, or never completed, is none that was served as usual.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lab.bench.intervals import quantiles
from lab.bench.phased import Row

OVERLOADED = "status-503"
SPAN_S = 3.0  # so long must all be well before it counts as normal
LEAST_USUAL_MS = 1000.0
USUAL_FACTOR = 2.0  # of the p99 before
FULL = 0.95  # of the rate that is offered, over `SPAN_S`


@dataclass(frozen=True, slots=True)
class Offered:
    """One order: when it was to leave, when it was answered, and what with.

    `slug` is None if it was accepted; `completed_at` is None if it never was completed.
    """

    intended: float
    answered: float
    slug: str | None
    completed_at: float | None

    @property
    def completion_ms(self) -> float | None:
        """How long it took until it was completed."""
        return None if self.completed_at is None else (self.completed_at - self.intended) * 1000


@dataclass(frozen=True, slots=True)
class Bound:
    """A goal: a figure and its bound, with their unit; `found` is None if it never came to that."""

    name: str
    found: float | None
    kind: Literal["at_least", "at_most"]
    bound: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the figure is on the right side of its bound."""
        if self.found is None:
            return False
        return self.found >= self.bound if self.kind == "at_least" else self.found <= self.bound


def offered(rows: Iterable[Row], completed: Mapping[str, float | None]) -> list[Offered]:
    """The orders of these rows, by when they were to leave; `completed` tells by id when each was done."""
    return sorted(
        (
            Offered(at, at + took_ms / 1000, slug, None if order_id is None else completed.get(order_id))
            for at, took_ms, slug, order_id in rows
        ),
        key=lambda each: each.intended,
    )


def due_in(orders: Iterable[Offered], since: float, until: float) -> list[Offered]:
    """Those that were to leave within this time."""
    return [each for each in orders if since <= each.intended < until]


def accepted(orders: Iterable[Offered]) -> list[Offered]:
    """Those that were accepted."""
    return [each for each in orders if each.slug is None]


def by_slug(orders: Iterable[Offered]) -> dict[str, int]:
    """How many orders ended in which way without being accepted."""
    counts: dict[str, int] = {}
    for each in orders:
        if each.slug is not None:
            counts[each.slug] = counts.get(each.slug, 0) + 1
    return counts


def answer_ms(orders: Iterable[Offered], slug: str | None) -> dict[str, float]:
    """Quantiles of the time until the answer, of orders that ended so; empty if none did."""
    return quantiles([(each.answered - each.intended) * 1000 for each in orders if each.slug == slug])


def completion_ms(orders: Iterable[Offered]) -> dict[str, float]:
    """Quantiles of the time until completion, of those that were completed; empty if none was."""
    return quantiles([each.completion_ms for each in orders if each.completion_ms is not None])


def completed_in(orders: Iterable[Offered], since: float, until: float) -> int:
    """How many were completed within this time, whenever they had been due."""
    return sum(each.completed_at is not None and since <= each.completed_at < until for each in orders)


def backlog_at(orders: Iterable[Offered], at: float) -> int:
    """How many had been accepted and not completed at this moment."""
    return sum(
        each.answered <= at and (each.completed_at is None or each.completed_at > at)
        for each in accepted(orders)
    )


def drained_after_s(orders: Iterable[Offered], since: float) -> float | None:
    """How long after `since` the last accepted order of before was completed; None: one never was."""
    ends = [each.completed_at for each in accepted(orders) if each.intended < since]
    known = [end for end in ends if end is not None]
    return None if len(known) < len(ends) else max([0.0, *(end - since for end in known)])


def usual_ms(before: Iterable[Offered]) -> float:
    """What an order may take at most and be served as usual: twice the p99 of before, a second at least."""
    return max(LEAST_USUAL_MS, USUAL_FACTOR * completion_ms(before).get("p99", 0.0))


def normal_after_s(
    orders: Sequence[Offered], since: float, until: float, most_ms: float, span_s: float = SPAN_S
) -> float | None:
    """How long after `since` it was until every order due in the `span_s` that follow was served as usual.

    None: by `until`, when no more were due, it had not come to that.
    """
    late = [each.intended for each in due_in(orders, since, until) if not _is_usual(each, most_ms)]
    for begins, ends in zip([since, *late], [*late, until], strict=True):
        if ends - begins >= span_s:
            return begins - since
    return None


def full_after_s(
    orders: Sequence[Offered], since: float, until: float, rate: float, span_s: float = SPAN_S
) -> float | None:
    """From which whole second after `since` as many orders are completed as are offered, `rate` a second.

    It is so in every `span_s` from then until `until`, but for a twentieth. None: it did not come to that.
    """
    least = FULL * rate * span_s
    full = [
        completed_in(orders, begins, begins + span_s) >= least for begins in _seconds(since, until - span_s)
    ]
    short = [number for number, enough in enumerate(full) if not enough]
    first = short[-1] + 1 if short else 0
    return float(first) if first < len(full) else None


def _seconds(since: float, until: float) -> Iterator[float]:
    while since <= until:
        yield since
        since += 1.0


def _is_usual(order: Offered, most_ms: float) -> bool:
    return order.slug is None and order.completion_ms is not None and order.completion_ms <= most_ms
