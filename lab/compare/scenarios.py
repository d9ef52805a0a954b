"""Scenarios: arms measured in interleaved windows under one workload, and the figures that come of it.

The order of the arms rotates from round to round, so that what drifts meets all of them alike. The figures of
one scenario are corrected together for their number.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from lab.compare.arms import Arm
from lab.compare.rig import Bench, Load, Rig
from lab.compare.verdicts import Figure, Kind, judge
from lab.compare.windows import Raw, Window

Advance = Callable[[str], None]
Keep = Callable[["Scenario", Raw, Window], None]

FIGURES: tuple[tuple[Kind, Callable[[Window], float | None]], ...] = (
    (Kind("ack_p50", "ack latency, p50", "ms"), lambda w: w.ack_ms.get("p50")),
    (Kind("ack_p99", "ack latency, p99", "ms"), lambda w: w.ack_ms.get("p99")),
    (Kind("completion_p50", "completion latency, p50", "ms"), lambda w: w.completion_ms.get("p50")),
    (Kind("completion_p99", "completion latency, p99", "ms"), lambda w: w.completion_ms.get("p99")),
    (Kind("cpu", "CPU time for each order", "ms"), lambda w: w.system_cpu_ms),
    (Kind("memory", "memory of the whole system", "MB"), lambda w: w.memory_mb),
)


@dataclass(frozen=True)
class Scenario:
    """One workload. `fresh`: each window has a system of its own; else one system serves all of them.

    `service_time` and `error_rate` are what its services simulate, by name, as they were asked for.
    `about_refusals`: orders that are refused are what it is to show, so they spoil nothing.
    """

    name: str
    title: str
    what: str
    arms: Sequence[Arm]
    load: Load
    rounds: int
    fresh: bool
    service_time: Mapping[str, str] = field(default_factory=dict)
    error_rate: Mapping[str, str] = field(default_factory=dict)
    about_refusals: bool = False

    @property
    def steps(self) -> int:
        """How many windows it has."""
        return self.rounds * len(self.arms)


@dataclass(frozen=True)
class Measured:
    """A scenario with its windows, in the order in which they were measured, and its figures."""

    scenario: Scenario
    windows: Sequence[Window]
    figures: Sequence[Figure]

    @property
    def troubles(self) -> list[str]:
        """Why figures of this scenario are not to be used, if they are not."""
        return [
            f"{self.scenario.name}, {window.arm}, round {window.round}: {trouble}"
            for window in self.windows
            if (trouble := self._trouble(window))
        ]

    def _trouble(self, window: Window) -> str | None:
        if self.scenario.about_refusals and window.refused:
            return window.broken or window.lateness
        return window.trouble

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        told = self.scenario
        return {
            "name": told.name,
            "title": told.title,
            "what": told.what,
            "arms": [arm.name for arm in told.arms],
            "rate": told.load.rate,
            "service_time": dict(told.service_time),
            "error_rate": dict(told.error_rate),
            "fresh_systems": told.fresh,
            "pairs": told.rounds,
            "window_s": told.load.measured_s,
            "warm_up_s": told.load.warm_up_s,
            "windows": [window.as_document() for window in self.windows],
            "figures": [figure.as_document() for figure in self.figures],
        }


async def measure(
    rig: Rig, scenario: Scenario, seed: int, advance: Advance, keep: Keep = lambda *_: None
) -> Measured:
    """All windows of a scenario; `keep` is given each with its raw rows. Raises `LabError`."""

    def announce(number: int, arm: Arm) -> None:
        advance(f"{scenario.name}, round {number + 1} of {scenario.rounds}: {arm.name}")

    work = _on_fresh_systems if scenario.fresh else _on_one_system
    pairs = await work(rig, scenario, seed, announce)
    for raw, window in pairs:
        keep(scenario, raw, window)
    windows = [window for _, window in pairs]
    return Measured(scenario, windows, figures_of(scenario.arms, windows))


def figures_of(arms: Sequence[Arm], windows: Sequence[Window]) -> list[Figure]:
    """Every figure that both of two arms have, for each two arms; a round that lacks it is said of it."""
    rounds = {
        arm.name: sorted((w for w in windows if w.arm == arm.name), key=lambda w: w.round) for arm in arms
    }
    pairs = list(itertools.combinations([arm.name for arm in arms], 2))
    asked = [
        (kind, a, b, [read(w) for w in rounds[a]], [read(w) for w in rounds[b]])
        for a, b in pairs
        for kind, read in FIGURES
    ]
    known = [each for each in asked if all(any(value is not None for value in told) for told in each[3:])]
    return [judge(kind, (a, of_a), (b, of_b), len(known)) for kind, a, b, of_a, of_b in known]


async def _on_fresh_systems(
    rig: Rig, scenario: Scenario, seed: int, announce: Callable[[int, Arm], None]
) -> list[tuple[Raw, Window]]:
    found = []
    for number, arm in _turns(scenario):
        announce(number, arm)
        async with AsyncExitStack() as stack:
            bench: Bench
            if arm.target is None:
                bench = await stack.enter_async_context(rig.system(arm.settings, fresh=True))
            else:
                bench = rig.target(arm.target)
            await bench.measure(arm, scenario.load, number + 1, seed + number)
            found += await bench.reckon()
    return found


async def _on_one_system(
    rig: Rig, scenario: Scenario, seed: int, announce: Callable[[int, Arm], None]
) -> list[tuple[Raw, Window]]:
    async with AsyncExitStack() as stack:
        benches: dict[Any, Bench] = {}
        for arm in scenario.arms:
            where = _where(arm)
            if where not in benches and arm.target is None:
                benches[where] = await stack.enter_async_context(rig.system(arm.settings, fresh=False))
            elif arm.target is not None:
                benches[where] = rig.target(arm.target)
        for number, arm in _turns(scenario):
            announce(number, arm)
            await benches[_where(arm)].measure(arm, scenario.load, number + 1, seed + number)
        return [pair for bench in benches.values() for pair in await bench.reckon()]


def _turns(scenario: Scenario) -> list[tuple[int, Arm]]:
    turns = []
    for number in range(scenario.rounds):
        turn = number % len(scenario.arms)
        turns += [(number, arm) for arm in (*scenario.arms[turn:], *scenario.arms[:turn])]
    return turns


def _where(arm: Arm) -> Any:
    """Which system an arm runs on: arms of the same settings share one."""
    return arm.name if arm.target is not None else tuple(sorted(arm.settings.items()))
