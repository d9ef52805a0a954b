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
from lab.compare.rows import forget_rows, keep_rows
from lab.compare.scenarios import Advance, Keep, Measured, Scenario, measure
from lab.compare.shapes import Shape
from lab.compare.windows import Raw, Window
from lab.errors import LabError


@dataclass(frozen=True)
class Comparison:
    """All that a run found. It passed if every ledger balances and no figure rests on a bad window.

    `broke_off` is what ended it early; `generator_first`: the generator ran at a real-time priority.
    """

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
    broke_off: str = ""
    generator_first: bool = False
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def troubles(self) -> list[str]:
        """Why the run has failed; empty if it has not."""
        told = [f"the run broke off: {self.broke_off}"] if self.broke_off else []
        told += [trouble for each in self.parts for trouble in each.troubles]
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
            "generator_priority": "real-time" if self.generator_first else "normal",
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
    """Measure everything in `folder`; `out`, if given, gets each window's orders.

    What breaks off after the first scenario keeps what was found before. Raises `LabError`.
    """
    setting = await asyncio.to_thread(describe, folder)
    keep = _keeper(out)
    advance("starting")
    scenarios: list[Measured] = []
    extra: list[Measured] = []
    ablated: list[Ablated] = []
    judged: list[Claim] = []
    aa = found = None
    broke_off = ""
    async with rig(folder) as measuring:
        for arm in shape.scenarios[0].arms:
            if arm.target is not None:
                await measuring.check(arm.target)

        async def done(scenario: Scenario) -> Measured:
            return await measure(measuring, scenario, seed, advance, keep)

        try:
            for scenario in shape.scenarios:
                scenarios.append(await done(scenario))
            aa = None if shape.aa is None else await done(shape.aa)
            if shape.capacity is not None:
                arms = both_styles(shape.settings)
                found = await measure_capacity(measuring, arms, shape.capacity, seed, advance)
            for scenario in shape.extra:
                extra.append(await done(scenario))
            if found is not None and extra:
                bare, real_times = scenarios
                judged = judge_claims(bare, real_times, found, {each.scenario.name: each for each in extra})
            if shape.ablations is not None:
                load, rounds = shape.ablations
                async for each in measure_ablations(
                    measuring, load, rounds, seed, advance, shape.settings, keep
                ):
                    ablated.append(each)
        except LabError as error:
            if not scenarios:
                raise
            broke_off = str(error)
    return Comparison(
        shape,
        setting,
        seed,
        command,
        scenarios,
        aa,
        found,
        extra,
        ablated,
        judged,
        broke_off,
        measuring.generator_first,
    )


def _keeper(out: Path | None) -> Keep:
    kept = False

    def keep(scenario: Scenario, raw: Raw, window: Window) -> None:
        nonlocal kept
        if out is None:
            return
        if not kept:  # what an earlier run has kept is there until there is something in its place
            forget_rows(out)
        kept = True
        keep_rows(out, scenario.name, raw)

    return keep
