"""What the options of `duet bench` come to: the shape of one bench. Pure.

It refuses options that do not go together, rather than to leave one out of account.
"""

from dataclasses import dataclass
from typing import Literal

from lab import bench
from lab.bench import against, comparison, curve, goals, growth, recovery, steps, styles_run
from lab.errors import LabError
from lab.system import Mail

CLIENTS = "1,16,64,256"
STEPS_CLIENTS = "1,16,64"
MOST_REVISIONS = 9
GROWTH_SIZES = "1000,100000,1000000"
QUICK_GROWTH_SIZES = "1000,10000,100000"
LARGEST_SIZE = 10_000_000
MOST_SIZES = 6
GROWTH_PAIRS = 8
RECOVERY_ORDERS, RECOVERY_ROUNDS = 10_000, 3
QUICK_RECOVERY_ORDERS, QUICK_RECOVERY_ROUNDS = 1_000, 1
CURVE_WINDOW_S = 15.0
AGAINST_PAIRS, AGAINST_WINDOW_S, AGAINST_RATE = 6, 20.0, 250.0  # a rate that older revisions keep up with
QUICK_AGAINST_PAIRS = 2
MOST_RATES = 20
HIGHEST_RATE = 10_000.0

ConductorShape = comparison.Shape | growth.Shape | recovery.Shape | steps.Shape
StylesShape = styles_run.Shape | curve.Shape | against.Shape


@dataclass(frozen=True, slots=True)
class ConductorOptions:
    """The options of `duet bench conductor` that say what is measured; None: not given."""

    quick: bool = False
    pairs: int | None = None
    seconds: float | None = None
    clients: str | None = None
    growth: bool = False
    sizes: str | None = None
    recovery: bool = False
    orders: int | None = None
    against: str | None = None


@dataclass(frozen=True, slots=True)
class StylesOptions:
    """The options of `duet bench styles` that say what is measured; None: not given."""

    quick: bool = False
    mail: Literal["null", "smtp", "both"] | None = None
    rate: float | None = None
    seconds: float | None = None
    rounds: int | None = None
    style: Literal["orchestration", "choreography", "both"] = "both"
    rates: str | None = None
    against: str | None = None
    pairs: int | None = None


def conductor_shape(given: ConductorOptions) -> ConductorShape:
    """Which bench of the conductor is asked for, and how much of it. Raises LabError."""
    if given.growth + given.recovery + (given.against is not None) > 1:
        raise LabError("--growth, --recovery and --against are benches of their own: ask for one at a time")
    if given.clients is not None and (given.growth or given.recovery):
        raise LabError("--clients is for conductors side by side: leave it out with --growth and --recovery")
    if given.sizes is not None and not given.growth:
        raise LabError("--sizes is for --growth: give both")
    if given.orders is not None and not given.recovery:
        raise LabError("--orders is for --recovery: give both")
    if given.recovery:
        return _recovery(given)
    measured_s = given.seconds or (bench.QUICK_S if given.quick else bench.FULL_S)
    warm_up_s = bench.QUICK_WARM_UP_S if given.quick else bench.FULL_WARM_UP_S
    if given.growth:
        usual = QUICK_GROWTH_SIZES if given.quick else GROWTH_SIZES
        return growth.Shape(
            sizes=parse_sizes(usual if given.sizes is None else given.sizes),
            pairs=given.pairs or (bench.QUICK_PAIRS if given.quick else GROWTH_PAIRS),
            measured_s=measured_s,
            warm_up_s=warm_up_s,
        )
    pairs = given.pairs or (bench.QUICK_PAIRS if given.quick else bench.FULL_PAIRS)
    if given.against is not None:
        return steps.Shape(
            revisions=parse_revisions(given.against),
            pairs=pairs,
            measured_s=measured_s,
            warm_up_s=warm_up_s,
            clients=bench.parse_clients(STEPS_CLIENTS if given.clients is None else given.clients),
        )
    return comparison.Shape(
        pairs=pairs,
        measured_s=measured_s,
        warm_up_s=warm_up_s,
        clients=bench.parse_clients(CLIENTS if given.clients is None else given.clients),
    )


def styles_shape(given: StylesOptions) -> StylesShape:
    """Which bench of the styles is asked for, and how much of it. Raises LabError."""
    if given.rates is not None and given.against is not None:
        raise LabError("--rates and --against are two benches: ask for one at a time")
    if (given.rates is not None or given.against is not None) and given.mail not in (None, "null"):
        raise LabError("--rates and --against measure with mail null: leave --mail out")
    if given.pairs is not None and given.against is None:
        raise LabError("--pairs is for --against: without it there are --rounds")
    if given.against is not None:
        return _against(given.against, given)
    if given.rates is not None:
        return _curve(given.rates, given)
    chosen = given.mail or ("null" if given.quick else "both")
    mails: tuple[Mail, ...] = ("null", "smtp") if chosen == "both" else (chosen,)
    usual = {
        name: bench.QUICK_RATE if given.quick else least * bench.OFFERED_OVER_GOAL
        for name, least in goals.LEAST_RATE.items()
    }
    return styles_run.Shape(
        mails=mails,
        rates={name: given.rate or usual[name] for name in _styles(given)},
        rounds=_rounds(given),
        measured_s=given.seconds or (bench.QUICK_WINDOW_S if given.quick else bench.FULL_WINDOW_S),
        warm_up_s=_warm_up_s(given),
        lone_orders=bench.QUICK_LONE if given.quick else bench.FULL_LONE,
        lone_warm_up=bench.LONE_WARM_UP,
        judged=not given.quick,
    )


def _recovery(given: ConductorOptions) -> recovery.Shape:
    if given.seconds is not None:
        raise LabError("--recovery takes as long as it takes: leave --seconds out")
    return recovery.Shape(
        orders=given.orders or (QUICK_RECOVERY_ORDERS if given.quick else RECOVERY_ORDERS),
        rounds=given.pairs or (QUICK_RECOVERY_ROUNDS if given.quick else RECOVERY_ROUNDS),
    )


def _against(revision: str, given: StylesOptions) -> against.Shape:
    if given.rounds is not None:
        raise LabError("--against has pairs of windows: give --pairs, not --rounds")
    rate = given.rate or (bench.QUICK_RATE if given.quick else AGAINST_RATE)
    return against.Shape(
        revision=revision,
        rates=dict.fromkeys(_styles(given), rate),
        pairs=given.pairs or (QUICK_AGAINST_PAIRS if given.quick else AGAINST_PAIRS),
        measured_s=given.seconds or (bench.QUICK_WINDOW_S if given.quick else AGAINST_WINDOW_S),
        warm_up_s=_warm_up_s(given),
        judged=not given.quick,
    )


def _curve(rates: str, given: StylesOptions) -> curve.Shape:
    if given.rate is not None:
        raise LabError("--rate is one rate and --rates are many: give one of them")
    return curve.Shape(
        rates=parse_rates(rates),
        styles=_styles(given),
        rounds=_rounds(given),
        measured_s=given.seconds or (bench.QUICK_WINDOW_S if given.quick else CURVE_WINDOW_S),
        warm_up_s=_warm_up_s(given),
    )


def _styles(given: StylesOptions) -> tuple[str, ...]:
    return tuple(name for name in goals.LEAST_RATE if given.style in (name, "both"))


def _rounds(given: StylesOptions) -> int:
    return given.rounds or (bench.QUICK_ROUNDS if given.quick else bench.FULL_ROUNDS)


def _warm_up_s(given: StylesOptions) -> float:
    return bench.QUICK_WINDOW_WARM_UP_S if given.quick else bench.FULL_WINDOW_WARM_UP_S


def parse_sizes(given: str) -> tuple[int, ...]:
    """Numbers of orders from `1000,100000`, each once, rising: at least two. Raises LabError."""
    try:
        sizes = tuple(sorted({int(part) for part in given.split(",")}))
    except ValueError:
        raise LabError(f"--sizes wants numbers with commas between, as 1000,100000: not {given!r}") from None
    if not 2 <= len(sizes) <= MOST_SIZES or not 1 <= sizes[0] <= sizes[-1] <= LARGEST_SIZE:
        raise LabError(f"--sizes wants 2 to {MOST_SIZES} numbers from 1 to {LARGEST_SIZE}: not {given!r}")
    return sizes


def parse_revisions(given: str) -> tuple[str, ...]:
    """Git revisions from `v1,v2`, in the order given. Raises LabError."""
    revisions = tuple(part.strip() for part in given.split(","))
    if not all(revisions) or len(set(revisions)) < len(revisions) or len(revisions) > MOST_REVISIONS:
        raise LabError(
            f"--against wants up to {MOST_REVISIONS} git revisions with commas between, oldest first, "
            f"each once: not {given!r}"
        )
    return revisions


def parse_rates(given: str) -> tuple[float, ...]:
    """Orders a second from `50,100,200`, each once, rising. Raises LabError."""
    try:
        rates = tuple(sorted({float(part) for part in given.split(",")}))
    except ValueError:
        raise LabError(f"--rates wants numbers with commas between, as 50,100,200: not {given!r}") from None
    if len(rates) > MOST_RATES or not all(1 <= rate <= HIGHEST_RATE for rate in rates):
        raise LabError(
            f"--rates wants at most {MOST_RATES} numbers from 1 to {HIGHEST_RATE:.0f}: not {given!r}"
        )
    return rates
