"""Runs the conductor bench for a person or a program: its folder, its progress, its report."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lab.bench.comparison import Outcome, Shape, run
from lab.bench.report import as_json, show


def run_conductor(shape: Shape, folder: Path, json: bool) -> bool:
    """Runs the bench and prints its report; whether it passed. Raises BenchError and KeyboardInterrupt.

    What it keeps meanwhile is a folder of its own in `folder`, removed at the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="conductor-", dir=folder.resolve()))
    try:
        outcome = _run_with_progress(shape, own)
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if json:
        sys.stdout.write(orjson.dumps(as_json(outcome), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show(outcome, Console())
    return outcome.passed


def _run_with_progress(shape: Shape, folder: Path) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=shape.steps)
        done = -2  # `starting` and the first measurement are announced before anything is done

        def advance(what: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=what, completed=max(done, 0))

        try:
            return asyncio.run(run(shape, folder, advance))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
