"""Carries out a comparison and holds all that it found."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.bench.setting import Setting, describe
from lab.compare.ablations import Ablated, measure_ablations
from lab.compare.arms import ACK, COMPLETION, both_styles
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
        told: list[Measured | Ablated] = [*self.scenarios, *self.extra, *self.ablations]
        if self.aa is not None:
            told.append(self.aa)
        found = [trouble for each in told for trouble in each.troubles]
        if self.capacity is not None:
            found += [
                f"capacity, {search.arm}, round {search.round}: {why}"
                for search in self.capacity.searches
                for why in ([] if search.capacity else ["no rate met the objective"])
            ]
            found += [
                f"capacity, {search.arm}, round {search.round}, {step.rate:.0f}/s: ledger does not balance"
                for search in self.capacity.searches
                for step in search.steps
                if not step.window.ledger.get("balances")
            ]
        return found

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        arms = self.scenarios[0].scenario.arms
        return {
            "kind": "compare",
            "version": 1,
            "shape": self.shape.name,
            "made_at": self.made_at.isoformat(timespec="seconds"),
            "command": self.command,
            "setting": asdict(self.setting),
            "seed": self.seed,
            "arms": [
                {"name": arm.name, "style": arm.style, "ack_means": ACK, "completion_means": COMPLETION}
                if arm.target is None
                else {
                    "name": arm.name,
                    "style": arm.style,
                    "ack_means": "whatever its 2xx promises",
                    "completion_means": COMPLETION,
                }
                for arm in arms
            ],
            "scenarios": [each.as_document() for each in self.scenarios],
            "aa": None if self.aa is None else self.aa.as_document(),
            "capacity": None if self.capacity is None else self.capacity.as_document(),
            "extra": [each.as_document() for each in self.extra],
            "ablations": [each.as_document() for each in self.ablations],
            "claims": [each.as_document() for each in self.claims],
            "troubles": self.troubles,
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
        if shape.capacity is None or shape.ablations is None:
            return Comparison(shape, setting, seed, command, scenarios, aa)
        found = await measure_capacity(measuring, both_styles(), shape.capacity, seed, advance)
        extra = [await done(scenario) for scenario in shape.extra]
        load, rounds = shape.ablations
        ablated = await measure_ablations(measuring, load, rounds, seed, advance)
    by_name = {each.scenario.name: each for each in extra}
    judged = judge_claims(scenarios[0], found, by_name)
    return Comparison(shape, setting, seed, command, scenarios, aa, found, extra, ablated, judged)


def _keeper(out: Path | None) -> Keep:
    def keep(scenario: Scenario, raw: Raw, window: Window) -> None:
        if out is not None:
            keep_rows(out, scenario.name, raw)

    return keep
