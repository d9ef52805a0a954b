"""Turns at a simulated service that serves so many a second, one at a time: for measuring only.

Where a file holds the number, it may change while items wait: they are then served at the new pace. Refuses a
file that holds no such number when the service starts; later the last one that could be read stays in force.
"""

import contextlib
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, FilePath

MAX_CAPACITY_PER_S = 1_000_000
LOOK_S = 0.1  # how soon a new number is noticed
LONGEST_NUMBER = 64  # characters


def read_capacity(path: Path) -> float:
    """The items a second that a file holds, and nothing else. Raises ValueError, OSError."""
    with path.open(encoding="utf-8") as file:
        text = file.read(LONGEST_NUMBER)
    try:
        capacity_per_s = float(text)
    except ValueError:
        capacity_per_s = math.nan
    if not 0 < capacity_per_s <= MAX_CAPACITY_PER_S:
        raise ValueError(
            f"{path} must hold a number of items a second, over 0 and up to {MAX_CAPACITY_PER_S}"
        )
    return capacity_per_s


def _checked_file(path: Path) -> Path:
    try:
        read_capacity(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    return path


CapacityPath = Annotated[FilePath, AfterValidator(_checked_file)]
"""A setting that names a file which `read_capacity` reads."""


class CapacityFile:
    """A capacity in items a second that a file holds, which is read again after `LOOK_S`.

    Whoever changes it replaces the file whole, or a part of the number may be read. Raises ValueError,
    OSError if it holds none at the start.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = clock()
        self._last = read_capacity(path)

    def __call__(self) -> float:
        """The newest number that could be read."""
        now = self._clock()
        if now - self._looked_at >= LOOK_S:  # a few bytes, ten times a second: no thread is worth that
            self._looked_at = now
            with contextlib.suppress(OSError, ValueError):
                self._last = read_capacity(self._path)
        return self._last


class Turns:
    """Serves items one at a time, in the order in which they came, at `capacity` items a second.

    Nothing is saved up while there are none. Whoever waits asks for the capacity anew every `look_s`.
    """

    def __init__(
        self,
        capacity: Callable[[], float],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        look_s: float = math.inf,
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._sleep = sleep
        self._look_s = look_s
        self._came = 0
        self._served = 0.0
        self._since = clock()
        self._pace = capacity()

    async def wait(self, then_s: float) -> None:
        """Wait until one more item has been served, and then for `then_s`, in seconds."""
        self._go_on()
        self._came += 1
        number = self._came
        while (left_s := (number - self._served) / self._pace) > self._look_s:
            await self._sleep(self._look_s)
            self._go_on()
        await self._sleep(max(left_s, 0.0) + then_s)

    def _go_on(self) -> None:
        """Serve at the pace that was in force until now; take over the one that is from now on."""
        now = self._clock()
        self._served = min(self._came, self._served + (now - self._since) * self._pace)
        self._since, self._pace = now, self._capacity()
