"""Runs experiments for a person or a program: scratch copies, progress with the time left, the report."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lab.bench.setting import Setting, describe
from lab.change import report
from lab.change.experiment import Found, Shape, carry_out
from lab.change.scenarios import Arm, Scenario, choose, read_scenarios
from lab.change.tree import Tree
from lab.errors import LabError
from lab.system import project_root

FILE_COLUMNS = 180


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
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"cannot write {error.filename}: {error.strerror}") from error
    setting = describe_setting(describe(_made(folder)), Shape())
    found = _carry_out_all(experiments, source, folder)
    if out is not None:
        report.write(found, setting, out)
    if as_json:
        typer.echo(json.dumps(report.document(found, setting)))
    else:
        _print(found, out)
    return all(each.sound for each in found)


def describe_setting(setting: Setting, shape: Shape) -> dict[str, Any]:
    """The machine, and how the experiments were run."""
    sentence = (
        f"Measured on {setting.cores} cores, Python {setting.python}, at commit {str(setting.commit)[:12]}: "
        f"{shape.rate:g} orders a second, open loop, on a whole system of one process a service, "
        "each service deployed by ending its process and starting it anew."
    )
    return {"sentence": sentence, "rate_per_s": shape.rate}


def _carry_out_all(experiments: Sequence[Experiment], source: Path, folder: Path) -> list[Found]:
    own = Path(tempfile.mkdtemp(prefix="change-", dir=_made(folder).resolve()))
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("starting", total=len(experiments))

            def begin(what: str) -> None:
                progress.update(task, description=what)

            found = []
            for number, experiment in enumerate(experiments):
                found.append(_carry_out(experiment, source, own / str(number), begin))
                progress.advance(task)
            return found
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _carry_out(experiment: Experiment, source: Path, own: Path, begin: Callable[[str], None]) -> Found:
    begin(experiment.name)
    tree = Tree.copy(source, own / "tree")
    (own / "system").mkdir()
    try:
        return asyncio.run(
            carry_out(
                experiment.scenario,
                experiment.arm,
                tree,
                own / "system",
                Shape(),
                experiment.careless,
            )
        )
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except LabError as error:
        raise LabError(f"{experiment.name}: {error}", error.exit_code) from error


def _print(found: Sequence[Found], out: Path | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("change")
    table.add_column("arm")
    for name, _ in report.COLUMNS:
        table.add_column(name, justify="right")
    for each in found:
        told = report.row(each)
        table.add_row(each.scenario.slug, told.name, *told.cells, style="" if told.sound else "red")
    console.print(table)
    for each in found:
        said = [
            str(told.get(key))
            for told, key in ((each.proof, "what"), (each.backfill or {}, "how"))
            if key in told
        ]
        typer.echo(f"{each.scenario.slug}, {report.row(each).name}: {'; '.join(said)}")
        if not each.sound:
            typer.echo(f"  not sound: {_why(each)}")
    if out is not None:
        typer.echo(f"the report is {out / 'changes.html'}")


def _why(found: Found) -> str:
    books = {key: value for key, value in found.audit.items() if key not in ("services", "styles")}
    return json.dumps({"audit": books, "proof": found.proof, "not accepted": found.not_accepted[:3]})


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
