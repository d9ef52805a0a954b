"""Carries out a comparison and holds all that it found."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.bench.setting import Setting, describe
from lab.compare.ablations import Ablated, measure_ablations
from lab.compare.arms import both_styles
from lab.compare.capacity import Capacity, measure_capacity
from lab.compare.claims import Claim, judge_claims
from lab.compare.rig import rig
from lab.compare.rows import keep_rows
from lab.compare.scenarios import Advance, Keep, Measured, Scenario, measure
from lab.compare.shapes import Shape
from lab.compare.windows import Raw, Window


@dataclass(frozen=True)
class Comparison:
    """All that a run found. It passed if every ledger balances and no figure rests on a bad window."""

    shape: Shape
    setting: Setting
    seed: int
    command: str
    scenarios: Sequence[Measured]
    aa: Measured | None = None
    capacity: Capacity | None = None
    extra: Sequence[Measured] = ()
    ablations: Sequence[Ablated] = ()
    claims: Sequence[Claim] = ()
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def troubles(self) -> list[str]:
        """Why the run has failed; empty if it has not."""
        told = [trouble for each in self.parts for trouble in each.troubles]
        return told + ([] if self.capacity is None else self.capacity.troubles)

    @property
    def balanced(self) -> bool:
        """Whether every window's ledger balances."""
        windows = [window for each in self.parts for window in each.windows]
        if self.capacity is not None:
            windows += [step.window for search in self.capacity.searches for step in search.steps]
        return all(window.ledger.get("balances", False) for window in windows)

    @property
    def parts(self) -> list[Measured | Ablated]:
        """Everything that was measured in pairs of windows."""
        aa = [] if self.aa is None else [self.aa]
        return [*self.scenarios, *aa, *self.extra, *self.ablations]

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": "compare",
            "version": 1,
            "shape": self.shape.name,
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "command": self.command,
            "setting": asdict(self.setting),
            "seed": self.seed,
            "arms": [arm.as_document() for arm in self.scenarios[0].scenario.arms],
            "scenarios": [each.as_document() for each in self.scenarios],
            "aa": None if self.aa is None else self.aa.as_document(),
            "capacity": None if self.capacity is None else self.capacity.as_document(),
            "extra": [each.as_document() for each in self.extra],
            "ablations": [each.as_document() for each in self.ablations],
            "claims": [each.as_document() for each in self.claims],
            "troubles": self.troubles,
            "balanced": self.balanced,
            "passed": not self.troubles,
        }


async def run(
    shape: Shape, folder: Path, seed: int, command: str, out: Path | None, advance: Advance
) -> Comparison:
    """Measure everything in `folder`; `out`, if given, gets each window's orders. Raises `LabError`."""
    setting = await asyncio.to_thread(describe, folder)
    keep = _keeper(out)
    advance("starting")
    async with rig(folder) as measuring:

        async def done(scenario: Scenario) -> Measured:
            return await measure(measuring, scenario, seed, advance, keep)

        scenarios = [await done(scenario) for scenario in shape.scenarios]
        aa = None if shape.aa is None else await done(shape.aa)
        found = None
        if shape.capacity is not None:
            arms = both_styles(shape.settings)
            found = await measure_capacity(measuring, arms, shape.capacity, seed, advance)
        extra = [await done(scenario) for scenario in shape.extra]
        ablated: list[Ablated] = []
        if shape.ablations is not None:
            load, rounds = shape.ablations
            ablated = await measure_ablations(measuring, load, rounds, seed, advance, shape.settings, keep)
    by_name = {each.scenario.name: each for each in extra}
    judged = [] if found is None or not extra else judge_claims(scenarios[0], found, by_name)
    return Comparison(shape, setting, seed, command, scenarios, aa, found, extra, ablated, judged)


def _keeper(out: Path | None) -> Keep:
    def keep(scenario: Scenario, raw: Raw, window: Window) -> None:
        if out is not None:
            keep_rows(out, scenario.name, raw)

    return keep
