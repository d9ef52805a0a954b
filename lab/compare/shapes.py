"""How much `duet compare` measures: a quick look at one system, or everything on fresh ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.compare import ablations, claims
from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm, both_styles, target_arm
from lab.compare.capacity import Shape as CapacityShape
from lab.compare.rig import Load
from lab.compare.scenarios import Scenario
from lab.compare.simulated import simulated
from lab.targets import Target

QUICK_LOAD, QUICK_ROUNDS = Load(100.0, 1.0, 5.0), 6
FULL_LOAD, FULL_ROUNDS = Load(100.0, 2.0, 10.0), 6
EXTRA_LOAD, EXTRA_ROUNDS = Load(100.0, 1.0, 3.0), 6
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

    def load(self, usual: Load) -> Load:
        """A load with the numbers that were asked for."""
        return Load(self.rate or usual.rate, usual.warm_up_s, self.seconds or usual.measured_s)


@dataclass(frozen=True)
class Shape:
    """Everything that one comparison measures, in this order; None is what a quick look leaves out."""

    name: str
    scenarios: Sequence[Scenario]
    aa: Scenario | None
    capacity: CapacityShape | None
    extra: Sequence[Scenario]
    ablations: tuple[Load, int] | None

    @property
    def steps(self) -> int:
        """How many things are announced, for the progress bar."""
        told = [*self.scenarios, *self.extra, *filter(None, [self.aa])]
        searches = 2 * self.capacity.rounds if self.capacity else 0
        ablated = ablations.count() * 2 * self.ablations[1] if self.ablations else 0
        return sum(each.steps for each in told) + searches + ablated


def quick(asked: Asked) -> Shape:
    """One scenario on one system (and on the targets): under three minutes."""
    rounds = asked.rounds or QUICK_ROUNDS
    return Shape(
        "quick", [_asked_for(asked, asked.load(QUICK_LOAD), rounds, fresh=False)], None, None, (), None
    )


def full(asked: Asked) -> Shape:
    """Fresh systems, real service times, an A/A run, capacities, claims, ablations: under forty minutes."""
    load, rounds = asked.load(FULL_LOAD), asked.rounds or FULL_ROUNDS
    extra_load, extra_rounds = asked.load(EXTRA_LOAD), asked.rounds or EXTRA_ROUNDS
    measured = [_asked_for(asked, load, rounds, fresh=True)]
    if not (asked.service_time or asked.error_rate):
        measured.append(
            Scenario(
                "service-times",
                "Services that take real time",
                "each service waits 80 ms (median, log-normal) for something outside, as a mail provider",
                both_styles(simulated(service_time=REAL_TIMES)),
                load,
                rounds,
                fresh=True,
                service_time=REAL_TIMES,
            )
        )
    aa = Scenario(
        "a/a",
        "The same arm twice",
        "orchestration against itself: what the lab calls a difference here is no difference",
        (Arm(ORCHESTRATION, ORCHESTRATION), Arm(AGAIN, ORCHESTRATION)),
        load,
        rounds,
        fresh=True,
    )
    return Shape(
        "full",
        measured,
        aa,
        CapacityShape(rounds=rounds),
        claims.scenarios(extra_load, extra_rounds),
        (extra_load, extra_rounds),
    )


def _asked_for(asked: Asked, load: Load, rounds: int, *, fresh: bool) -> Scenario:
    arms = [
        *both_styles(simulated(asked.service_time, asked.error_rate)),
        *(target_arm(target) for target in asked.targets),
    ]
    as_asked = bool(asked.service_time or asked.error_rate)
    bare = f"no service waits for anything outside; {ORCHESTRATION} over HTTP, {CHOREOGRAPHY} over JetStream"
    return Scenario(
        "as-asked" if as_asked else "bare",
        "As it was asked for" if as_asked else "Services as fast as they are",
        "the services simulate what was asked for" if as_asked else bare,
        arms,
        load,
        rounds,
        fresh=fresh,
        service_time=asked.service_time,
        error_rate=asked.error_rate,
    )
