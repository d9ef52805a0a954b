"""How much `duet compare` measures: a quick look at one system, or everything on fresh ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lab.compare import ablations, claims
from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm, both_styles, target_arm
from lab.compare.capacity import Shape as CapacityShape
from lab.compare.rig import Load
from lab.compare.scenarios import Scenario
from lab.compare.simulated import simulated
from lab.targets import Target

QUICK_LOAD, QUICK_ROUNDS = Load(100.0, 1.0, 4.0), 8
FULL_LOAD, FULL_ROUNDS = Load(100.0, 2.0, 10.0), 6
EXTRA_LOAD, EXTRA_ROUNDS = Load(100.0, 1.0, 3.0), 6
WINDOW_EXTRA_S = 1.5  # to find the system quiet again, and to count
START_S = 8.0  # a system's start, its books and its end
BOOKS_S = 1.0
USUAL_STEPS = 4  # of a search for a capacity
REAL_TIMES = dict.fromkeys(("email", "warehouse", "rewards"), "lognormal:80ms")
AGAIN = "orchestration again"


@dataclass(frozen=True)
class Asked:
    """What a person asked for: service times and error rates by service, targets, and other numbers."""

    service_time: Mapping[str, str]
    error_rate: Mapping[str, str]
    targets: Sequence[Target] = ()
    rate: float | None = None
    rounds: int | None = None
    seconds: float | None = None

    @property
    def settings(self) -> dict[str, str]:
        """What the services of every arm of our own simulate; empty if nothing was asked for."""
        return simulated(self.service_time, self.error_rate)

    def load(self, usual: Load) -> Load:
        """A load with the numbers that were asked for."""
        return Load(self.rate or usual.rate, usual.warm_up_s, self.seconds or usual.measured_s)


@dataclass(frozen=True)
class Shape:
    """Everything that one comparison measures, in this order; None is what a quick look leaves out.

    `settings` are those of the arms whose capacity is searched, and of the ablations. Claims are judged on
    services as they are, from `extra` beside the rest: it is empty where something else was asked for.
    """

    name: str
    scenarios: Sequence[Scenario]
    aa: Scenario | None = None
    capacity: CapacityShape | None = None
    extra: Sequence[Scenario] = ()
    ablations: tuple[Load, int] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def expected_s(self) -> list[float]:
        """How long each thing that is announced may take, for the progress bar."""
        told = [*self.scenarios, *filter(None, [self.aa])]
        windows = [_window_s(each.load, fresh=each.fresh) for each in told for _ in range(each.steps)]
        extra = [_window_s(each.load, fresh=False) for each in self.extra for _ in range(each.steps)]
        searches: list[float] = []
        ablated: list[float] = []
        if self.capacity is not None:
            load = Load(self.capacity.start, self.capacity.warm_up_s, self.capacity.measured_s)
            search_s = START_S + USUAL_STEPS * (_window_s(load, fresh=False) + BOOKS_S)
            searches = [search_s] * (2 * self.capacity.rounds)
        if self.ablations is not None:
            load, rounds = self.ablations
            ablated = [_window_s(load, fresh=False)] * (ablations.count() * 2 * rounds)
        return [*windows, *searches, *extra, *ablated]


def quick(asked: Asked) -> Shape:
    """One scenario on one system (and on the targets): under three minutes."""
    rounds = asked.rounds or QUICK_ROUNDS
    return Shape("quick", [_asked_for(asked, asked.load(QUICK_LOAD), rounds, fresh=False)])


def full(asked: Asked) -> Shape:
    """Fresh systems, real service times, an A/A run, capacities, claims, ablations: under forty minutes."""
    load, rounds = asked.load(FULL_LOAD), asked.rounds or FULL_ROUNDS
    extra_load, extra_rounds = asked.load(EXTRA_LOAD), asked.rounds or EXTRA_ROUNDS
    measured = [_asked_for(asked, load, rounds, fresh=True)]
    extra: list[Scenario] = []
    if not asked.settings:
        measured.append(_with_real_times(load, rounds))
        extra = claims.scenarios(extra_load, extra_rounds)
    aa = Scenario(
        "aa",
        "The same arm twice",
        "orchestration against itself: what the lab calls a difference here is no difference",
        (Arm(ORCHESTRATION, ORCHESTRATION, asked.settings), Arm(AGAIN, ORCHESTRATION, asked.settings)),
        load,
        rounds,
        fresh=True,
        service_time=asked.service_time,
        error_rate=asked.error_rate,
    )
    searched = CapacityShape(rounds=rounds)
    if asked.seconds is not None:
        searched = replace(searched, measured_s=asked.seconds)
    return Shape("full", measured, aa, searched, extra, (extra_load, extra_rounds), asked.settings)


def _with_real_times(load: Load, rounds: int) -> Scenario:
    return Scenario(
        "service-times",
        "Services that take real time",
        "each service waits 80 ms (median, log-normal) for something outside, such as a mail provider",
        both_styles(simulated(service_time=REAL_TIMES)),
        load,
        rounds,
        fresh=True,
        service_time=REAL_TIMES,
    )


def _asked_for(asked: Asked, load: Load, rounds: int, *, fresh: bool) -> Scenario:
    arms = [*both_styles(asked.settings), *(target_arm(target) for target in asked.targets)]
    bare = f"no service waits for anything outside; {ORCHESTRATION} over HTTP, {CHOREOGRAPHY} over JetStream"
    return Scenario(
        "as asked" if asked.settings else "bare",
        "As it was asked for" if asked.settings else "Services as fast as they are",
        "the services simulate what was asked for" if asked.settings else bare,
        arms,
        load,
        rounds,
        fresh=fresh,
        service_time=asked.service_time,
        error_rate=asked.error_rate,
    )


def _window_s(load: Load, *, fresh: bool) -> float:
    return load.warm_up_s + load.measured_s + WINDOW_EXTRA_S + (START_S if fresh else 0.0)
