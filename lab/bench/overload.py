"""The overload bench: ten times what one service manages is offered to a whole system, in each style.

The warehouse is slowed by its simulated capacity. What counts is how much is completed meanwhile, how soon
those are told who are turned away, and how long it is afterwards until an order is served as before. In the
choreographed style nobody is to be turned away, and the backlog waits in the stream: it is told how large it
is, and how long it takes. It refuses to judge by speed alone: in the end each order is reconciled with every
service.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.bench import course
from lab.bench.course import OVERLOADED, Bound
from lab.bench.phased import Answers, Phase
from lab.bench.trial import STRUCK, Books, StyleByStyle, next_start, style_by_style, trial_of
from lab.ledger import Report

ORCHESTRATION, CHOREOGRAPHY = "orchestration", "choreography"
STEPS = 3  # of each style

LEAST_GOODPUT = 0.9  # of the capacity
LONGEST_RECOVERY_S = 5.0
QUIET_S = 60.0  # on top of twice the time that the backlog takes at best
LONGEST_QUIET_S = 1800.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is offered, and for how long: `usual_rate` for `warm_up_s` (discarded) and `before_s`, then
    `times` the warehouse's `capacity` for `overload_s`, then `usual_rate` for `after_s`. Rates are a second.

    `judged` is whether the goals are held against what is found.
    """

    styles: tuple[str, ...]
    capacity: float
    times: float
    warm_up_s: float
    before_s: float
    overload_s: float
    after_s: float
    judged: bool
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many steps that makes."""
        return len(self.styles) * STEPS

    @property
    def usual_rate(self) -> float:
        """Half the capacity."""
        return self.capacity / 2

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Warm-up, before, overload, after."""
        return (
            Phase(self.usual_rate, self.warm_up_s),
            Phase(self.usual_rate, self.before_s),
            Phase(self.capacity * self.times, self.overload_s),
            Phase(self.usual_rate, self.after_s),
        )

    @property
    def patience_s(self) -> float:
        """How long the backlog is waited for at most."""
        at_best_s = self.times * self.overload_s + self.after_s / 2
        return min(2 * at_best_s + QUIET_S, LONGEST_QUIET_S)


@dataclass(frozen=True, slots=True)
class Found:
    """One style under overload. Rates are a second; what has no other time is of the overload.

    `turned_away` counts 503s, and `turned_away_after` those once it was over; `errors` counts whatever else
    was not accepted, by slug, at any time. `normal_after_s` and `drained_after_s` count from its end; None:
    it did not come to that. `backlog` is what was accepted and not completed then.
    """

    style: str
    offered_rate: float
    due: int
    accepted: int
    turned_away: int
    turned_away_after: int
    errors: dict[str, int]
    goodput: float
    ack_ms: dict[str, float]
    refusal_ms: dict[str, float]
    before_ms: dict[str, float]
    completion_ms: dict[str, float]
    usual_ms: float
    normal_after_s: float | None
    backlog: int
    drained_after_s: float | None
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
    advance(f"{style}: too many orders")
    async with trial_of(style, folder / style, settings(shape)) as trial:
        starts_at = next_start()
        answers = await trial.offer(shape.phases, starts_at, shape.seed)
        advance(f"{style}: waiting for the backlog")
        await trial.settle(shape.patience_s)
        advance(f"{style}: reading the books")
        return summarise(style, shape, starts_at, answers, await trial.reckon())


def settings(shape: Shape) -> Mapping[str, str]:
    """What makes the warehouse slow."""
    return {f"{STRUCK.upper()}_SIMULATE_CAPACITY": f"{shape.capacity:g}"}


def summarise(style: str, shape: Shape, starts_at: float, answers: Answers, books: Books) -> Found:
    """The figures of a style, whose first order was to leave at `starts_at`, in seconds since 1970."""
    warm = starts_at + shape.warm_up_s
    began = warm + shape.before_s
    over = began + shape.overload_s
    end = over + shape.after_s
    before = course.due_in(books.orders, warm, began)
    during = course.due_in(books.orders, began, over)
    after = course.due_in(books.orders, over, end)
    errors = course.by_slug(books.orders)
    errors.pop(OVERLOADED, None)
    usual_ms = course.usual_ms(before)
    found = Found(
        style=style,
        offered_rate=shape.capacity * shape.times,
        due=len(during),
        accepted=len(course.accepted(during)),
        turned_away=course.by_slug(during).get(OVERLOADED, 0),
        turned_away_after=course.by_slug(after).get(OVERLOADED, 0),
        errors=errors,
        goodput=course.completed_in(books.orders, began, over) / shape.overload_s,
        ack_ms=course.answer_ms(during, None),
        refusal_ms=course.answer_ms(during, OVERLOADED),
        before_ms=course.completion_ms(before),
        completion_ms=course.completion_ms(during),
        usual_ms=usual_ms,
        normal_after_s=course.normal_after_s(books.orders, over, end, usual_ms),
        backlog=course.backlog_at(books.orders, over),
        drained_after_s=course.drained_after_s(books.orders, over),
        generator_lag_ms=answers.lag_ms,
        ledger=books.ledger,
    )
    found.goals.extend(judge(found, shape) if shape.judged else ())
    return found


def judge(found: Found, shape: Shape) -> list[Bound]:
    """The goals of a style: what is completed and how soon it is over, or that nobody is turned away."""
    name = found.style
    if name == CHOREOGRAPHY:
        away = float(found.turned_away + found.turned_away_after)
        return [Bound(f"{name}: orders turned away", away, "at_most", 0, "")]
    least = LEAST_GOODPUT * shape.capacity
    return [
        Bound(f"{name}: completed during the overload", found.goodput, "at_least", least, "/s"),
        Bound(f"{name}: back to normal after", found.normal_after_s, "at_most", LONGEST_RECOVERY_S, "s"),
    ]
