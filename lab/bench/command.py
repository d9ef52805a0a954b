"""Runs a bench for a person or a program, and shows its report."""

import sys
from pathlib import Path
from typing import Any

import orjson

from lab.bench import comparison, report, styles_report, styles_run
from lab.errors import LabError
from lab.long_run import page, run_in


def run_conductor(shape: comparison.Shape, folder: Path, json: bool) -> bool:
    """Runs the conductor bench and prints its report; whether it passed.

    What it keeps meanwhile is a folder of its own in `folder`, removed at the end. Raises BenchError and
    KeyboardInterrupt.
    """
    outcome = run_in(folder, "bench", shape.steps, lambda own, advance: comparison.run(shape, own, advance))
    if json:
        sys.stdout.write(_pretty(report.as_json(outcome)).decode())
    else:
        report.show(outcome, page())
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
    outcome = run_in(
        folder, "bench", shape.steps, lambda own, advance: styles_run.run(shape, own, out, advance)
    )
    if json is not None:
        json.write_bytes(_pretty(styles_report.as_json(outcome)))
    styles_report.show(outcome, page())
    return outcome.passed


def _pretty(document: dict[str, Any]) -> bytes:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS  # enums
    return orjson.dumps(document, option=options)
