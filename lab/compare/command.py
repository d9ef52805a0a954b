"""Runs a comparison for a person or a program, shows what it found, and writes the report."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import typer

from lab.compare import comparison, shapes, view
from lab.errors import LabError
from lab.long_run import make_folder, page, run_in
from lab.report import render

DATA = "compare.json"


def run(
    asked: shapes.Asked,
    *,
    full: bool,
    seed: int,
    folder: Path,
    out: Path | None,
    decision: bool,
    as_json: bool,
) -> bool:
    """Compare, print, and write into `out`; whether the run passed. Raises LabError and KeyboardInterrupt."""
    shape = shapes.full(asked) if full else shapes.quick(asked)
    _refuse_twins([arm.name for arm in shape.scenarios[0].arms])
    if out is not None:
        make_folder(out)
    command = shlex.join(["duet", *sys.argv[1:]])
    found = run_in(
        folder,
        "compare",
        shape.expected_s,
        lambda own, advance: comparison.run(shape, own, seed, command, out, advance),
    )
    document = found.as_document()
    if as_json:
        typer.echo(json.dumps(document))
    else:
        view.show(found, page())
    if out is not None:
        _write(document, out, decision=decision, quiet=as_json)
    return not found.troubles


def _write(document: dict[str, Any], out: Path, *, decision: bool, quiet: bool) -> None:
    """Write the document, and the report."""
    (out / DATA).write_text(json.dumps(document, indent=1) + "\n")
    written = render(out, decision=decision)
    typer.echo(f"the report is {written[0]}", err=quiet)


def _refuse_twins(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise LabError(f"two arms have one name: {', '.join(names)}")
