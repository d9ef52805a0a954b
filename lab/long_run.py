"""A long measurement for a person or a program: a folder of its own, progress with the time left, an end.

Ctrl-C, SIGTERM and a closed terminal end it alike: what it has started is ended on the way out.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lab.errors import LabError

FILE_COLUMNS = 180
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Advance = Callable[[str], None]
Outcome = TypeVar("Outcome")


def page() -> Console:
    """The terminal; in a file there is room for whole tables."""
    return Console(width=None if sys.stdout.isatty() else FILE_COLUMNS)


def make_folder(folder: Path) -> None:
    """Make a folder if there is none; raise `LabError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot use {folder} as a folder: {error.strerror}") from error


def run_in(
    folder: Path, prefix: str, steps: int, run: Callable[[Path, Advance], Coroutine[Any, Any, Outcome]]
) -> Outcome:
    """Run in a folder of its own below `folder`, removed at the end; what came of it.

    `run` calls what it is given with what comes next: with a preparation first, then with each of `steps`.
    Raises LabError and KeyboardInterrupt.
    """
    make_folder(folder)
    own = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=folder.resolve()))
    try:
        return _run_with_progress(steps, lambda advance: run(own, advance))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run_with_progress(steps: int, run: Callable[[Advance], Coroutine[Any, Any, Outcome]]) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=steps)
        done = -2  # the preparation and the first step are announced before anything is done

        def advance(what: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=what, completed=max(done, 0))

        try:
            return asyncio.run(_until_stopped(run(advance)))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _until_stopped(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a closed terminal is under nohup
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await work
