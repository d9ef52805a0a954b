"""Published claims about the two styles, each held against what was measured here.

It says on which clock a claim holds, and why; a claim whose figures are undecided is not decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm, both_styles
from lab.compare.capacity import Capacity
from lab.compare.rig import Load
from lab.compare.scenarios import Measured, Scenario
from lab.compare.simulated import REAL_TIMES, simulated
from lab.compare.verdicts import EQUIVALENT, UNDECIDED, Figure, Kind, judge
from lab.compare.windows import Window

YES, NO, PARTLY, OPEN = "yes", "no", "partly", "not decided"
ERRORS, ONE_WORKER, THREE_WORKERS, UNEQUAL = "errors", "one-worker", "three-workers", "unequal"
FINISHED, HANDED_IN = "orchestration, finished", "choreography, 202"
WORK_PER_S = 100  # of one worker that takes 10 ms an item
LOAD_SHARE = 0.6
LEAST_ERRORS = 10  # fewer are chance
WAIT_S = 30  # as long as checkout lets a client wait
SLOWER = 1.3
MOST_OF_IT = 0.9  # saved, to count as the claim's 98 %
P95 = Kind("ack_p95", "ack latency, p95", "ms")


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, what was found, and whether it holds here; `clock` is what `found` was read from."""

    name: str
    source: str
    claim: str
    found: str
    holds: str
    clock: str
    why: str

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def scenarios(load: Load, rounds: int) -> list[Scenario]:
    """What has to be measured besides the two styles as they are."""
    names = ("email", "warehouse", "rewards")
    one, three = ({name: str(n * WORK_PER_S) for name in names} for n in (1, 3))
    slow = simulated(service_time=REAL_TIMES)
    unequal = (
        Arm(FINISHED, ORCHESTRATION, slow, prefer=f"wait={WAIT_S}"),
        Arm(HANDED_IN, CHOREOGRAPHY, slow, prefer="respond-async"),
    )

    def workers(name: str, title: str, capacity: Mapping[str, str], rate: float) -> Scenario:
        what = f"each service does {capacity['email']} items a second, at {LOAD_SHARE:.0%} of that load"
        its_load = Load(rate, load.warm_up_s, load.measured_s)
        arms = both_styles(simulated(capacity=capacity))
        return Scenario(name, title, what, arms, its_load, rounds, fresh=False)

    failing = {"warehouse": "1%"}
    return [
        Scenario(
            ERRORS,
            "One call in a hundred fails",
            f"the warehouse fails one try in a hundred; clients wait up to {WAIT_S} s for a finished order",
            [replace(arm, prefer=f"wait={WAIT_S}") for arm in both_styles(simulated(error_rate=failing))],
            load,
            rounds,
            fresh=False,
            error_rate=failing,
            about_refusals=True,
        ),
        workers(ONE_WORKER, "One worker a service", one, WORK_PER_S * LOAD_SHARE),
        workers(THREE_WORKERS, "Three workers a service", three, 3 * WORK_PER_S * LOAD_SHARE),
        Scenario(
            UNEQUAL,
            "A 202 beside a finished order",
            "orchestration is asked to wait until all is done, choreography only to take the order; services "
            "take real time",
            unequal,
            load,
            rounds,
            fresh=False,
            service_time=REAL_TIMES,
        ),
    ]


def judge_claims(
    bare: Measured, real_times: Measured, capacity: Capacity, extra: Mapping[str, Measured]
) -> list[Claim]:
    """Every claim, from services as they are, from ones that take real time, and from those above by name."""
    return [
        _gagnidze(bare, capacity, extra[ERRORS]),
        judge_workers(extra[ONE_WORKER], extra[THREE_WORKERS]),
        _p95(real_times, extra[UNEQUAL]),
    ]


def _gagnidze(bare: Measured, capacity: Capacity, errors: Measured) -> Claim:
    ack, done, cpu = (_figure(bare, slug) for slug in ("ack_p50", "completion_p50", "cpu"))
    failed = {
        style: sum(_failed(window) for window in errors.windows if window.arm == style)
        for style in (ORCHESTRATION, CHOREOGRAPHY)
    }
    votes = [_favours(each) for each in (ack, done, capacity.figure)]
    orchestrated, choreographed = failed[ORCHESTRATION], failed[CHOREOGRAPHY]
    fewer_errors = orchestrated >= LEAST_ERRORS and orchestrated > 3 * choreographed
    holds = _overall([*votes, YES if fewer_errors else NO])
    found = (
        f"{ack.sentence} {done.sentence} {capacity.figure.sentence} {cpu.sentence} While one try of the "
        f"warehouse in a hundred failed, clients that waited up to {WAIT_S} s and got no finished order: "
        f"{orchestrated} orchestrated, {choreographed} choreographed."
    )
    return Claim(
        "Gagnidze 2023",
        "N. Gagnidze, Advantages of Event-Driven Architecture in Microservice Applications, SENS 2023",
        "Events bring 14% more responsiveness, 23% more throughput and almost five times fewer errors than "
        "REST, for about 10% more CPU.",
        found,
        holds,
        "ack and completion, each named; throughput as capacity within the objective",
        "Judged by direction, not by size; CPU is told, not judged. Here both styles try again what fails, "
        "so an error of a service costs a client time, and no answer. Where REST is called without retries "
        "and an answer waits for it, each failed call is a failed request; the difference is then the "
        "retries', not the style's.",
    )


def judge_workers(one: Measured, three: Measured) -> Claim:
    """Kyriakakis' claim, from one worker a service and from three."""
    first, second = (_figure(each, "completion_p50") for each in (one, three))
    holds = _overall([_slower(first), _equal(second)])
    return Claim(
        "Kyriakakis 2023",
        "A. Kyriakakis, Performance Investigation of Various Microservice Architectures, NTUA, July 2023",
        "RabbitMQ is 1.3 to 1.7 times slower than an orchestrator at one worker, and equal at three.",
        f"One worker a service: {first.sentence} Three: {second.sentence}",
        holds,
        "completion, p50",
        "There a worker is a container of a service, fed through RabbitMQ or over websockets; here it is a "
        f"share of a simulated service that does {WORK_PER_S} items a second for each, on JetStream or HTTP. "
        "The broker, the storage and the work differ; what is compared is the shape of the claim: does the "
        "broker's price show with one worker, and vanish with three?",
    )


def _slower(figure: Figure) -> str:
    """Whether choreography is slower by the claimed share at least."""
    if figure.ratio is None or figure.ratio.low <= 1.05 < SLOWER <= figure.ratio.high:
        return OPEN
    return YES if figure.ratio.high >= SLOWER else NO


def _equal(figure: Figure) -> str:
    if figure.verdict == UNDECIDED:
        return OPEN
    return YES if figure.verdict == EQUIVALENT else NO


def _p95(equal: Measured, unequal: Measured) -> Claim:
    windows = {
        arm: sorted((w for w in unequal.windows if w.arm == arm), key=lambda w: w.round)
        for arm in (FINISHED, HANDED_IN)
    }
    told = judge(
        P95,
        (FINISHED, [w.ack_ms.get("p95") for w in windows[FINISHED]]),
        (HANDED_IN, [w.ack_ms.get("p95") for w in windows[HANDED_IN]]),
        1,
    )
    ack, done = _figure(equal, "ack_p99"), _figure(equal, "completion_p99")
    if told.ratio is None or told.ratio.low < 1 - MOST_OF_IT < told.ratio.high:
        holds = OPEN
    elif told.ratio.low >= 1 - MOST_OF_IT:
        holds = NO
    else:
        equal_too = all(each.ratio is not None and each.ratio.high <= 1 - MOST_OF_IT for each in (ack, done))
        holds = YES if equal_too else PARTLY
    return Claim(
        "98% better p95",
        "a repository that times a 202 of its choreography against a finished call of its orchestration",
        "Choreography's p95 is 98% better.",
        f"A 202 against a finished order (a ratio of at most {1 - MOST_OF_IT:.2g} counts as the claim): "
        f"{told.sentence} Asked for the same: {ack.sentence} {done.sentence}",
        holds,
        "ack of the one against completion of the other; then each clock against itself",
        "A 202 says that the order was taken, a 201 that it was carried out. The gain is what is not waited "
        "for: an orchestrated checkout that is asked with Prefer: respond-async has it, too.",
    )


def _failed(window: Window) -> int:
    """How many clients were refused, or had a 202 after their wait."""
    return window.refused + window.handed_in


def _figure(measured: Measured, slug: str) -> Figure:
    return next(each for each in measured.figures if each.kind.slug == slug)


def _favours(figure: Figure) -> str:
    """Whether a figure says that choreography is better."""
    if figure.verdict == UNDECIDED:
        return OPEN
    return YES if figure.verdict == CHOREOGRAPHY else NO


def _overall(votes: Sequence[str]) -> str:
    """What votes come to: a part that holds is not the whole, and an open one leaves the rest open."""
    if all(vote == YES for vote in votes):
        return YES
    if YES in votes:
        return PARTLY
    return OPEN if OPEN in votes else NO
