"""What a service waits for outside its own database (a carrier, a mail provider), for measuring only.

Each item waits before its effect is made, told or heard alike: for its turn, where only so many are served a
second, and then for a time of its own, beside the others; a share of the tries ends as trouble after that.
The draws are seeded, so a run can be repeated. Refuses a time, a share or a rate that cannot be meant.
"""

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated

from pydantic import AfterValidator

from servicekit.turns import LOOK_S, CapacityFile, Turns

SEED = 20
# Of the lognormal law: one item in twenty waits 2.3 times the median, one in a hundred 3.2 times.
SIGMA = 0.5
# Longer than anybody waits for an answer; no draw exceeds it either.
MAX_TIME_S = 60.0
# Events that are in hand at once, as many as the conductor's calls to one service (CHECKOUT_MAX_IN_FLIGHT).
MAX_IN_HAND = 64

_TIME = re.compile(r"(constant|exponential|lognormal):(\d{1,9}(?:\.\d{1,9})?)(ms|s)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)%")


class SimulatedTroubleError(Exception):
    """What a service needs has failed this once, because the settings say so. Nothing was done."""

    def __init__(self) -> None:
        super().__init__("a simulated error, for measuring only")


@dataclass(frozen=True)
class ServiceTime:
    """A law of times: `middle_s`, in seconds, is the median of a lognormal one and the mean of the others."""

    law: str
    middle_s: float

    def draw_s(self, random: Random) -> float:
        """One item's time in seconds."""
        if self.law == "lognormal":
            drawn_s = self.middle_s * math.exp(random.gauss(0, SIGMA))
        elif self.law == "exponential":
            drawn_s = random.expovariate(1) * self.middle_s
        else:
            drawn_s = self.middle_s
        return min(drawn_s, MAX_TIME_S)


def parse_time(text: str) -> ServiceTime:
    """The law that `lognormal:80ms`, `exponential:5ms` or `constant:0.01s` names. Raises ValueError."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ValueError("use lognormal:80ms (the median), exponential:5ms or constant:10ms (the mean)")
    middle_s = float(found[2]) / (1000 if found[3] == "ms" else 1)
    if middle_s > MAX_TIME_S:
        raise ValueError(f"a simulated time is at most {MAX_TIME_S:g}s")
    return ServiceTime(found[1], middle_s)


def parse_share(text: str) -> float:
    """The share from 0 to 1 that `1%` names. Raises ValueError."""
    found = _SHARE.fullmatch(text.strip())
    if found is None or float(found[1]) > 100:
        raise ValueError("use a percentage from 0% to 100%, such as 1%")
    return float(found[1]) / 100


def _checked_time(text: str) -> str:
    parse_time(text)
    return text


def _checked_share(text: str) -> str:
    parse_share(text)
    return text


TimeText = Annotated[str, AfterValidator(_checked_time)]
"""A setting that `parse_time` reads."""
ShareText = Annotated[str, AfterValidator(_checked_share)]
"""A setting that `parse_share` reads."""


class Simulation:
    """One service's time, errors and capacity; `name` is part of the seed, so services draw apart.

    `capacity_per_s`: items are served one at a time, in the order in which they came. What a caller that went
    away has begun keeps its turn, as it would elsewhere. A file that holds it may be changed meanwhile.
    """

    def __init__(
        self,
        name: str,
        *,
        service_time: ServiceTime | None = None,
        error_share: float = 0.0,
        capacity_per_s: float | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._service_time = service_time
        self._error_share = error_share
        self._sleep = sleep
        self._turns = None if capacity_per_s is None else _turns(capacity_per_s, clock, sleep)
        # Two sequences, so that the times are the same with errors and without.
        self._times = Random(f"{SEED} {name} times")  # noqa: S311 - a simulation, no secret
        self._errors = Random(f"{SEED} {name} errors")  # noqa: S311 - a simulation, no secret

    async def serve(self) -> None:
        """Wait as long as one item takes, its turn included. Raises SimulatedTroubleError if it fails."""
        fails = self._error_share > 0 and self._errors.random() < self._error_share
        time_s = 0.0 if self._service_time is None else self._service_time.draw_s(self._times)
        await (self._sleep(time_s) if self._turns is None else self._turns.wait(time_s))
        if fails:
            raise SimulatedTroubleError


def _turns(
    capacity_per_s: float | Path, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
) -> Turns:
    if isinstance(capacity_per_s, Path):
        return Turns(CapacityFile(capacity_per_s, clock), clock, sleep, look_s=LOOK_S)
    return Turns(lambda: capacity_per_s, clock, sleep)
