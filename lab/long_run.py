"""A long measurement for a person or a program: a folder of its own, progress with the time left, an end.

Ctrl-C, SIGTERM and a closed terminal end it alike: what it has started is ended on the way out.
"""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from lab.errors import LabError

FILE_COLUMNS = 180
SPEED_OVER_S = 3600.0  # a step may take a minute: the time left is told by many
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
    folder: Path,
    prefix: str,
    steps: int | Sequence[float],
    run: Callable[[Path, Advance], Coroutine[Any, Any, Outcome]],
) -> Outcome:
    """Run in a folder of its own below `folder`, removed at the end; what came of it.

    `run` calls what it is given with what comes next: with a preparation first, then with each of `steps`:
    how many there are, or how long each may take, in seconds, where that differs much.
    Raises LabError and KeyboardInterrupt.
    """
    make_folder(folder)
    own = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=folder.resolve()))
    weights = [1.0] * steps if isinstance(steps, int) else list(steps)
    try:
        return _run_with_progress(weights, lambda advance: run(own, advance))
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _run_with_progress(
    weights: Sequence[float], run: Callable[[Advance], Coroutine[Any, Any, Outcome]]
) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=SPEED_OVER_S,
    ) as progress:
        task = progress.add_task("starting", total=sum(weights))
        done = -2  # the preparation and the first step are announced before anything is done

        def advance(what: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, description=what, completed=sum(weights[: max(done, 0)]))

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
