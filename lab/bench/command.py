"""Runs a bench for a person or a program, and shows its report."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from lab.bench import (
    against,
    against_report,
    comparison,
    curve,
    curve_report,
    growth,
    growth_report,
    recovery,
    recovery_report,
    report,
    steps,
    steps_report,
    styles_report,
    styles_run,
)
from lab.bench.choices import ConductorShape, StylesShape
from lab.errors import LabError
from lab.long_run import Advance, page, run_in

Told = tuple[bool, dict[str, Any], Callable[[Console], None]]  # whether it passed, the document, the page


def run_conductor(shape: ConductorShape, folder: Path, json: bool) -> bool:
    """Runs the bench of the conductor that a shape is of, and prints its report; whether it passed.

    What it keeps meanwhile is a folder of its own in `folder`, removed at the end. Raises BenchError and
    KeyboardInterrupt.
    """
    passed, document, show = run_in(
        folder, "bench", shape.steps, lambda own, advance: _conductor(shape, own, advance)
    )
    if json:
        sys.stdout.write(pretty(document).decode())
    else:
        show(page())
    return passed


def run_styles(shape: StylesShape, folder: Path, json: Path | None, out: Path | None) -> bool:
    """Runs the bench of the styles in `folder`, as above; `json` gets the document, `out` the raw rows.

    Raises LabError and KeyboardInterrupt.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        if json is not None:
            json.touch()
    except OSError as error:
        raise LabError(f"cannot write {error.filename}: {error.strerror}") from error
    passed, document, show = run_in(
        folder, "bench", shape.steps, lambda own, advance: _styles(shape, own, out, advance)
    )
    if json is not None:
        json.write_bytes(pretty(document))
    show(page())
    return passed


async def _conductor(shape: ConductorShape, folder: Path, advance: Advance) -> Told:
    if isinstance(shape, growth.Shape):
        grown = await growth.run(shape, folder, advance)
        return grown.passed, growth_report.as_json(grown), lambda on: growth_report.show(grown, on)
    if isinstance(shape, recovery.Shape):
        back = await recovery.run(shape, folder, advance)
        return back.passed, recovery_report.as_json(back), lambda on: recovery_report.show(back, on)
    if isinstance(shape, steps.Shape):
        made = await steps.run(shape, folder, advance)
        return made.passed, steps_report.as_json(made), lambda on: steps_report.show(made, on)
    found = await comparison.run(shape, folder, advance)
    return found.passed, report.as_json(found), lambda on: report.show(found, on)


async def _styles(shape: StylesShape, folder: Path, out: Path | None, advance: Advance) -> Told:
    if isinstance(shape, curve.Shape):
        points = await curve.run(shape, folder, out, advance)
        return points.passed, curve_report.as_json(points), lambda on: curve_report.show(points, on)
    if isinstance(shape, against.Shape):
        pairs = await against.run(shape, folder, out, advance)
        return pairs.passed, against_report.as_json(pairs), lambda on: against_report.show(pairs, on)
    found = await styles_run.run(shape, folder, out, advance)
    return found.passed, styles_report.as_json(found), lambda on: styles_report.show(found, on)


def pretty(document: dict[str, Any]) -> bytes:
    """A bench's document as JSON for people, too."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS  # enums
    return orjson.dumps(document, option=options)
