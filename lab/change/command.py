"""Runs experiments for a person or a program, each on a scratch copy, and shows what they come to.

An experiment that cannot be carried out is a row that says why; the others go on.
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from lab.bench.setting import Setting, describe
from lab.change import report
from lab.change.experiment import Shape, carry_out
from lab.change.found import Found
from lab.change.scenarios import Arm, Scenario, choose, read_scenarios
from lab.change.tree import Tree
from lab.errors import LabError
from lab.long_run import Advance, make_folder, page, run_in
from lab.report import render
from lab.system import project_root


@dataclass(frozen=True)
class Experiment:
    """One thing to carry out."""

    scenario: Scenario
    arm: Arm
    careless: str = ""

    @property
    def name(self) -> str:
        """What it is called while it runs."""
        return f"{self.scenario.slug}, {report.arm_name(self.arm, self.careless)}"


def plan(scenarios: Sequence[Scenario], style: str) -> list[Experiment]:
    """The experiments on these scenarios: every arm, with care, and without where that is told apart.

    Raises `LabError` where a scenario has no such arm.
    """
    chosen = []
    for scenario in scenarios:
        arms = [arm for arm in scenario.arms.values() if style in ("both", arm.name)]
        if not arms and len(scenarios) == 1:
            raise LabError(f"{scenario.slug} has no patches for {style}: it has {', '.join(scenario.arms)}")
        chosen += [Experiment(scenario, arm) for arm in arms]
        chosen += [Experiment(scenario, arm, careless) for arm in arms for careless in arm.careless]
    return chosen


def run(scenario: str, style: str, out: Path | None, folder: Path, *, as_json: bool) -> bool:
    """Carry out the scenarios that are asked for and print what they showed; whether all of it is sound.

    Raises LabError and KeyboardInterrupt.
    """
    source = project_root()
    experiments = plan(choose(read_scenarios(source), scenario), style)
    for wanted in filter(None, (folder, out)):
        make_folder(wanted)
    setting = describe(folder)
    found = run_in(
        folder,
        "change",
        len(experiments),
        lambda own, advance: _carry_out_all(experiments, source, own, advance),
    )
    told = describe_setting(setting, Shape(), max(each.lag_s for each in found))
    if as_json:
        typer.echo(json.dumps(report.document(found, told)))
    else:
        _print(found)
    if out is not None:
        report.write(found, told, out)
        typer.echo(f"the report is {out / 'changes.html'}", err=as_json)
        typer.echo(f"with all else that the folder holds: {render(out)[0]}", err=as_json)
    return all(each.sound for each in found)


def try_patches(experiments: Sequence[Experiment], source: Path, folder: Path) -> None:
    """Raise `LabError`, saying what to do, unless all patches apply; before anything is started."""
    tree = Tree.copy(source, folder)
    untouched = tree.git("rev-parse", "HEAD").strip()
    for slug, arm in {(each.scenario.slug, each.arm.name): each.arm for each in experiments}.items():
        for patch in filter(None, (arm.base, *arm.stages)):
            try:
                tree.apply(patch)
            except LabError as error:
                raise LabError(f"{error}\nmake it anew with: duet change --edit {' '.join(slug)}") from error
        tree.git("reset", "-q", "--hard", untouched)


def describe_setting(setting: Setting, shape: Shape, lag_s: float) -> dict[str, Any]:
    """The machine, and how the experiments were run."""
    changed = " with uncommitted changes" if setting.uncommitted_changes else ""
    sentence = (
        f"Measured on {setting.cores} cores, Python {setting.python}, at commit "
        f"{str(setting.commit)[:12]}{changed}: {shape.rate:g} orders a second, open loop, never more than "
        f"{lag_s * 1000:.0f} ms late, on a whole system of one process a service; a service is deployed by "
        "ending its process and starting it anew, with care once the one before is ready, without "
        f"{shape.careless_s:g} s after it."
    )
    return {"sentence": sentence, **asdict(shape), **asdict(setting)}


async def _carry_out_all(
    experiments: Sequence[Experiment], source: Path, own: Path, advance: Advance
) -> list[Found]:
    """Carry out all, one after the other, once it is known that their patches apply."""
    advance("trying the patches")
    await asyncio.to_thread(try_patches, experiments, source, own / "patches")
    found = []
    for number, each in enumerate(experiments):
        advance(each.name)
        folder = own / str(number)
        tree = await asyncio.to_thread(Tree.copy, source, folder / "tree")
        (folder / "system").mkdir()
        try:
            found.append(
                await carry_out(each.scenario, each.arm, tree, folder / "system", Shape(), each.careless)
            )
        except LabError as error:
            found.append(Found(each.scenario, each.arm, each.careless, error=str(error)))
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return found


def _print(found: Sequence[Found]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("change")
    table.add_column("arm")
    for name, _ in report.COLUMNS:
        table.add_column(name, justify="right")
    for each in found:
        told = report.row(each)
        table.add_row(each.scenario.slug, told.name, *told.cells, style="" if told.sound else "red")
    page().print(table)
    for each in found:
        typer.echo(f"{each.scenario.slug}, {report.row(each).name}: {' '.join(report.said(each))}")
