"""What a check is: a name, the sentence that it checks, where that is written, and how it is tried."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lab.conform.subject import Subject

Trial = Callable[[Subject], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement; `trial` raises `FailedError` if it is not met, `SkippedError` if it is not tried."""

    name: str
    requires: str
    where: str
    trial: Trial


@dataclass
class Section:
    """The checks of one part of the API's description."""

    where: str
    checks: list[Check] = field(default_factory=list)

    def check(self, name: str, requires: str) -> Callable[[Trial], Trial]:
        """Add the decorated trial."""

        def add(trial: Trial) -> Trial:
            self.checks.append(Check(name, requires, self.where, trial))
            return trial

        return add
