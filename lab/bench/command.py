"""Runs a bench for a person or a program: its folder, its progress, its report."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lab.bench import comparison, report, styles_report, styles_run
from lab.errors import LabError

FILE_COLUMNS = 180

Outcome = TypeVar("Outcome")


def run_conductor(shape: comparison.Shape, folder: Path, json: bool) -> bool:
    """Runs the conductor bench and prints its report; whether it passed.

    What it keeps meanwhile is a folder of its own in `folder`, removed at the end. Raises BenchError and
    KeyboardInterrupt.
    """
    outcome = _run_in(folder, shape.steps, lambda own, advance: comparison.run(shape, own, advance))
    if json:
        sys.stdout.write(_pretty(report.as_json(outcome)).decode())
    else:
        report.show(outcome, _page())
    return outcome.passed


def run_styles(shape: styles_run.Shape, folder: Path, json: Path | None, out: Path | None) -> bool:
    """Runs the styles bench in `folder`, as above; `json` gets the document, `out` the raw rows.

    Raises LabError and KeyboardInterrupt.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        if json is not None:
            json.touch()
    except OSError as error:
        raise LabError(f"cannot write {error.filename}: {error.strerror}") from error
    outcome = _run_in(folder, shape.steps, lambda own, advance: styles_run.run(shape, own, out, advance))
    if json is not None:
        json.write_bytes(_pretty(styles_report.as_json(outcome)))
    styles_report.show(outcome, _page())
    return outcome.passed


def _page() -> Console:
    """The terminal; in a file there is room for whole tables."""
    return Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)


def _pretty(document: dict[str, Any]) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS  # enums
    return orjson.dumps(document, option=options)


def _run_in(
    folder: Path, steps: int, run: Callable[[Path, Callable[[str], None]], Coroutine[Any, Any, Outcome]]
) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="bench-", dir=folder.resolve()))
    try:
        return _run_with_progress(steps, lambda advance: run(own, advance))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run_with_progress(
    steps: int, run: Callable[[Callable[[str], None]], Coroutine[Any, Any, Outcome]]
) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=steps)
        done = -2  # `starting` and the first measurement are announced before anything is done

        def advance(what: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=what, completed=max(done, 0))

        try:
            return asyncio.run(run(advance))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
