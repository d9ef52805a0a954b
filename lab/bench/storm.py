"""The storm bench: whether retries make a service that is slow for a moment slow for long, in each style.

The warehouse, at four fifths of its capacity, has a fifth of it left for a while and then all of it again.
Counted is how often it is told of an order: by the conductor's own count of calls in the orchestrated style,
by the broker's count of deliveries in the choreographed one. And how soon afterwards as much is completed as
is offered. It refuses to judge by that alone: in the end each order is reconciled with every service.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from lab import broker
from lab.bench import course
from lab.bench.children import BenchError, fetch
from lab.bench.course import OVERLOADED, Bound
from lab.bench.overload import CHOREOGRAPHY, LONGEST_QUIET_S, LONGEST_RECOVERY_S, QUIET_S, STEPS
from lab.bench.phased import Answers, Phase
from lab.bench.trial import STRUCK, Books, StyleByStyle, Trial, next_start, style_by_style, trial_of
from lab.coupling import traffic
from lab.ledger import Report
from lab.system import CONDUCTOR

MOST_ATTEMPTS = 1.2  # of an order, at the service
NEVER_SENT = "too-many-in-flight"  # counted as an attempt that ended so, though the service heard of none
ORDERS = "ORDERS"
LOOKS = 4  # at the metrics of a conductor that has much to do, five seconds each


@dataclass(frozen=True, slots=True)
class Shape:
    """The warehouse's `capacity` in orders a second, the `load` and what is `left` of it, as shares, and how
    long: `warm_up_s` (discarded) and `before_s`, then `storm_s` with what is left, then `after_s`.

    `judged` is whether the goals are held against what is found.
    """

    styles: tuple[str, ...]
    capacity: float
    load: float
    left: float
    warm_up_s: float
    before_s: float
    storm_s: float
    after_s: float
    judged: bool
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many steps that makes."""
        return len(self.styles) * STEPS

    @property
    def rate(self) -> float:
        """The orders that are offered, a second, all the time."""
        return self.capacity * self.load

    @property
    def length_s(self) -> float:
        """How long orders are offered."""
        return self.warm_up_s + self.before_s + self.storm_s + self.after_s

    @property
    def patience_s(self) -> float:
        """How long what is left in the end is waited for at most."""
        return min(2 * self.storm_s + QUIET_S, LONGEST_QUIET_S)


@dataclass(frozen=True, slots=True)
class Storm:
    """When the capacity fell and rose again, in seconds since 1970.

    And how often the warehouse had been told of an order: before the fall, by the rise, and in the end.
    """

    fell_at: float
    rose_at: float
    told_before: int
    told_by_rise: int
    told_in_the_end: int


@dataclass(frozen=True, slots=True)
class Found:
    """One style in a storm. Counts and times are of orders that were due while the capacity was low.

    `attempts_while_low` is how often the warehouse was told then, for each order accepted then (a call counts
    when it ends); `attempts_in_all` the same from then until all was quiet. `turned_away` counts 503s, and
    `turned_away_after` those of later; `errors` counts whatever else was not accepted, by slug, at any time.
    What is `_after_s` counts from when the capacity was back; None: it did not come to that. `backlog` is
    what was accepted and not completed then, `backlog_soon` within the time in which it should be over.
    """

    style: str
    rate: float
    due: int
    accepted: int
    turned_away: int
    turned_away_after: int
    errors: dict[str, int]
    attempts_while_low: float
    attempts_in_all: float
    before_ms: dict[str, float]
    completion_ms: dict[str, float]
    usual_ms: float
    full_after_s: float | None
    normal_after_s: float | None
    drained_after_s: float | None
    backlog: int
    backlog_soon: int
    generator_lag_ms: dict[str, float]
    ledger: Report
    goals: list[Bound] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the ledger balances, no order met an error, and every goal that was judged is met."""
        return self.ledger.balances and not self.errors and all(goal.met for goal in self.goals)


Outcome = StyleByStyle[Shape, Found]


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next.

    SIGTERM ends it as Ctrl-C does. Raises LabError.
    """
    return await style_by_style(shape, folder, advance, _measure)


async def _measure(style: str, shape: Shape, folder: Path, advance: Callable[[str], None]) -> Found:
    advance(f"{style}: a storm")
    file = folder / f"{style}-capacity"
    set_capacity(file, shape.capacity)
    async with trial_of(
        style, folder / style, {f"{STRUCK.upper()}_SIMULATE_CAPACITY_FROM": str(file)}
    ) as trial:
        starts_at = next_start()
        phases = [Phase(shape.rate, shape.length_s)]
        offering = asyncio.create_task(trial.offer(phases, starts_at, shape.seed))
        try:
            fell_at, before, rose_at, by_rise = await _strike(trial, shape, file, starts_at)
            answers = await offering
        finally:
            offering.cancel()
        advance(f"{style}: waiting until all is quiet")
        await trial.settle(shape.patience_s)
        advance(f"{style}: reading the books")
        storm = Storm(fell_at, rose_at, before, by_rise, await _told(trial))
        return summarise(style, shape, starts_at, storm, answers, await trial.reckon())


async def _strike(trial: Trial, shape: Shape, file: Path, starts_at: float) -> tuple[float, int, float, int]:
    """Take most of the capacity away, and give it back: when that was, and what had been told by then."""
    await asyncio.sleep(starts_at + shape.warm_up_s + shape.before_s - time.time())
    before = await _told(trial)
    fell_at = time.time()
    set_capacity(file, shape.capacity * shape.left)
    await asyncio.sleep(fell_at + shape.storm_s - time.time())
    set_capacity(file, shape.capacity)
    return fell_at, before, time.time(), await _told(trial)


def set_capacity(file: Path, per_s: float) -> None:
    """Replace the file that holds the warehouse's capacity, whole."""
    new = file.with_name(f"{file.name}-new")
    new.write_text(f"{per_s:g}\n")
    os.replace(new, file)


async def _told(trial: Trial) -> int:
    """How often the warehouse has been told of an order so far. Raises LabError."""
    system = trial.whole.system
    if trial.style == CHOREOGRAPHY:
        async with broker.connect(system) as jetstream:
            return await traffic.delivered(jetstream, ORDERS, STRUCK)
    return calls_told(await _exposition(system.port(CONDUCTOR)), STRUCK)


async def _exposition(port: int) -> str:
    """The conductor's metrics, also where it is slow to tell them. Raises BenchError."""
    for _ in range(LOOKS - 1):
        with contextlib.suppress(BenchError):
            return (await fetch(port, "/metrics")).body.decode()
    return (await fetch(port, "/metrics")).body.decode()


def calls_told(exposition: str, service: str) -> int:
    """The conductor's calls to a service by a Prometheus text exposition, but for those that were never sent.

    Raises BenchError if it tells of no calls at all.
    """
    for family in text_string_to_metric_families(exposition):
        if family.name == "step_attempts":
            return sum(
                int(sample.value)
                for sample in family.samples
                if sample.name == "step_attempts_total"
                and sample.labels["service"] == service
                and sample.labels["outcome"] != NEVER_SENT
            )
    raise BenchError("the conductor does not tell of its calls: no step_attempts in its /metrics")


def summarise(
    style: str, shape: Shape, starts_at: float, storm: Storm, answers: Answers, books: Books
) -> Found:
    """The figures of a style, whose first order was to leave at `starts_at`, in seconds since 1970."""
    end = starts_at + shape.length_s
    before = course.due_in(books.orders, starts_at + shape.warm_up_s, storm.fell_at)
    during = course.due_in(books.orders, storm.fell_at, storm.rose_at)
    after = course.due_in(books.orders, storm.rose_at, end)
    errors = course.by_slug(books.orders)
    errors.pop(OVERLOADED, None)
    usual_ms = course.usual_ms(before)
    kept, kept_after = len(course.accepted(during)), len(course.accepted(after))
    found = Found(
        style=style,
        rate=shape.rate,
        due=len(during),
        accepted=kept,
        turned_away=course.by_slug(during).get(OVERLOADED, 0),
        turned_away_after=course.by_slug(after).get(OVERLOADED, 0),
        errors=errors,
        attempts_while_low=(storm.told_by_rise - storm.told_before) / max(kept, 1),
        attempts_in_all=(storm.told_in_the_end - storm.told_before) / max(kept + kept_after, 1),
        before_ms=course.completion_ms(before),
        completion_ms=course.completion_ms(during),
        usual_ms=usual_ms,
        full_after_s=course.full_after_s(books.orders, storm.rose_at, end, shape.rate),
        normal_after_s=course.normal_after_s(books.orders, storm.rose_at, end, usual_ms),
        drained_after_s=course.drained_after_s(books.orders, storm.rose_at),
        backlog=course.backlog_at(books.orders, storm.rose_at),
        backlog_soon=course.backlog_at(books.orders, storm.rose_at + LONGEST_RECOVERY_S),
        generator_lag_ms=answers.lag_ms,
        ledger=books.ledger,
    )
    found.goals.extend(judge(found) if shape.judged else ())
    return found


def judge(found: Found) -> list[Bound]:
    """The goals, the same for both styles: no storm of attempts, and soon as much completed as is offered."""
    name, low, in_all = found.style, found.attempts_while_low, found.attempts_in_all
    return [
        Bound(f"{name}: attempts an order while it was slow", low, "at_most", MOST_ATTEMPTS, ""),
        Bound(f"{name}: attempts an order until all was quiet", in_all, "at_most", MOST_ATTEMPTS, ""),
        Bound(f"{name}: full goodput after", found.full_after_s, "at_most", LONGEST_RECOVERY_S, "s"),
    ]
