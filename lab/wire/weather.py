"""What is done to the exchanges of a wire: which kinds, to how large a share, drawn from which seed.

Pure: nothing here waits, sends or listens. It refuses weather out of bounds: no harm lasts for over a minute.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lab.errors import LabError

Kind = Literal["delay", "drip", "cut", "lose", "reset", "swallow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LASTING: tuple[Kind, ...] = ("delay", "drip", "swallow")  # those that take `seconds`
FLAKY: tuple[Kind, ...] = ("reset", "lose", "cut")
LONGEST_S = 60.0
SEED = 20

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True, slots=True)
class Weather:
    """One of `kinds`, drawn evenly, befalls each exchange that is hit; no kinds: clear weather.

    `share` of the exchanges are hit, 0 < share <= 1. `seconds`, at most 60, is for `delay` (how much later
    each piece of the reply comes), `drip` (over how long each piece is spread) and `swallow` (until the
    connection is reset; `passed`: whether the request still reaches the other side). `cut` ends the reply at
    a random byte, `lose` throws it away, `reset` comes before the request is passed; each resets the
    connection. Raises `LabError` where a figure is out of bounds.
    """

    kinds: tuple[Kind, ...] = ()
    share: float = 1.0
    seconds: float = 0.0
    seed: int = SEED
    passed: bool = True

    def __post_init__(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in KINDS]:
            raise LabError(f"there is no weather {', '.join(map(str, unknown))}: give {', '.join(KINDS)}")
        if not 0 < self.share <= 1:
            raise LabError(f"a share of {self.share:g}: give more than 0 and at most 1 (100%)")
        lasting = any(kind in LASTING for kind in self.kinds)
        if lasting and not 0 < self.seconds <= LONGEST_S:
            raise LabError(f"{self.seconds:g} s: give more than 0 and at most {LONGEST_S:g} s")


CLEAR = Weather()


@dataclass(frozen=True, slots=True)
class Fate:
    """What befalls one exchange: nothing (no kind), or a kind; a cut comes `at` this share of the reply."""

    kind: Kind | None = None
    at: float = 0.0
    seconds: float = 0.0
    passed: bool = True


def slow(seconds: float, kind: Kind = "delay") -> Weather:
    """Every exchange takes so much longer; raise `LabError` for a kind that takes no time, or too much."""
    if kind not in LASTING:
        raise LabError(f"{kind} does not make anything slow: give {', '.join(LASTING)}")
    return Weather((kind,), seconds=seconds)


def flaky(share: float, seed: int = SEED) -> Weather:
    """This share of the exchanges fails: connection reset, reply lost or reply cut, evenly."""
    return Weather(FLAKY, share=share, seed=seed)


def fate(weather: Weather, wire: str, number: int) -> Fate:
    """What befalls the exchange of this number on a wire: by the seed alone, whatever came before."""
    if not weather.kinds:
        return Fate()
    draw = random.Random(f"{weather.seed} {wire} {number}")  # noqa: S311  # weather, no secret
    if draw.random() >= weather.share:
        return Fate()
    return Fate(draw.choice(weather.kinds), draw.random(), weather.seconds, weather.passed)


def in_words(weather: Weather) -> str:
    """Weather as a person is told of it."""
    if not weather.kinds:
        return "clear"
    kinds = " or ".join(weather.kinds)
    lasts = f" {weather.seconds:g} s" if any(kind in LASTING for kind in weather.kinds) else ""
    which = "all exchanges" if weather.share == 1 else f"{100 * weather.share:.4g}% of the exchanges"
    return f"{kinds}{lasts} on {which}"


def as_document(weather: Weather) -> dict[str, Any]:
    """Weather as JSON."""
    return {**asdict(weather), "kinds": list(weather.kinds)}


def read_weather(document: Any) -> Weather:
    """Weather from JSON; raise `LabError` where it is none."""
    try:
        told = dict(document) if isinstance(document, Mapping) else {}
        weather = Weather(
            tuple(told.pop("kinds")),
            float(told.pop("share")),
            float(told.pop("seconds")),
            int(told.pop("seed")),
            bool(told.pop("passed")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LabError(f"that is no weather: {error!r}") from error
    if told:
        raise LabError(f"that is no weather: what is {', '.join(told)}?")
    return weather


def read_duration(text: str) -> float:
    """Seconds from `2s` or `300ms`; raise `LabError` for anything else, and for what is out of bounds."""
    if found := _DURATION.fullmatch(text):
        seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
        if 0 < seconds <= LONGEST_S:
            return seconds
    raise LabError(f"{text} is no time: give for example 2s or 300ms, at most {LONGEST_S:g}s")


def read_share(text: str) -> float:
    """A share from `10%`; raise `LabError` for anything else, and for what is out of bounds."""
    if (found := _SHARE.fullmatch(text)) and 0 < float(found[1]) <= 100:
        return float(found[1]) / 100
    raise LabError(f"{text} is no share: give for example 10%, more than 0% and at most 100%")
