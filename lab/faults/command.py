"""Runs the matrix of faults for a person or a program, cell by cell, and shows what it comes to.

A cell that cannot be run is a cell that says why; the others go on.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from lab.arms import ARMS, Arm
from lab.bench.setting import Setting, describe
from lab.errors import LabError
from lab.faults import view
from lab.faults.catalogue import Fault, Load, choose, make_faults
from lab.faults.cell import Cell, run_cell
from lab.long_run import Advance, make_folder, page, run_in
from lab.report import render

Keep = Callable[[Sequence[Cell]], object]

FILE = "faults.json"
VERSION = 1


def choose_arms(style: str) -> list[Arm]:
    """The arms that `--style` means."""
    return [arm for arm in ARMS if style in ("all", arm.style) or (style == "both" and arm.durable)]


def passed(cells: Iterable[Cell]) -> bool:
    """Whether every cell of a durable arm is sound."""
    return all(cell.sound for cell in cells if cell.arm.durable)


def as_document(
    cells: Sequence[Cell], arms: Sequence[Arm], faults: Sequence[Fault], setting: Setting, seed: int
) -> dict[str, Any]:
    """The matrix as `faults.json` has it: one that lacks cells, since it was interrupted, has not passed."""
    return {
        "kind": "faults",
        "version": VERSION,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["duet", *sys.argv[1:]]),
        "setting": asdict(setting),
        "seed": seed,
        "rate": Load().rate,
        "arms": [
            {"name": arm.name, "title": arm.title, "what": arm.what, "durable": arm.durable} for arm in arms
        ],
        "faults": [
            {"slug": fault.slug, "title": fault.title, "what": fault.what, "group": fault.group}
            for fault in faults
        ],
        "cells": [cell.as_document() for cell in cells],
        "passed": len(cells) == len(arms) * len(faults) and passed(cells),
    }


def list_faults(*, as_json: bool) -> None:
    """Print all faults."""
    faults = make_faults()
    if as_json:
        told = [{"slug": each.slug, "title": each.title, "what": each.what} for each in faults]
        typer.echo(json.dumps(told))
    else:
        page().print(view.catalogue(faults))


def run(style: str, only: Iterable[str], out: Path | None, folder: Path, seed: int, *, as_json: bool) -> bool:
    """Run the chosen cells and print what they showed; whether the durable arms' are sound.

    Raises LabError and KeyboardInterrupt.
    """
    faults, arms = choose(only), choose_arms(style)
    for wanted in filter(None, (folder, out)):
        make_folder(wanted)
    setting = describe(folder)

    def keep(cells: Sequence[Cell]) -> dict[str, Any]:
        document = as_document(cells, arms, faults, setting, seed)
        if out is not None:
            _write(out / FILE, document)
        return document

    cells = run_in(
        folder,
        "faults",
        len(faults) * len(arms),
        lambda own, advance: _run_all(faults, arms, seed, own, advance, keep),
    )
    document = keep(cells)
    if as_json:
        typer.echo(json.dumps(document))
    else:
        view.show(cells, arms, faults, page())
    if out is not None:
        typer.echo(f"the report is {render(out)[0]}", err=as_json)
    return bool(document["passed"])


async def _run_all(
    faults: Sequence[Fault], arms: Sequence[Arm], seed: int, own: Path, advance: Advance, keep: Keep
) -> list[Cell]:
    """All cells, one after the other; `keep` is given what there is after each."""
    advance("starting")
    cells: list[Cell] = []
    for fault in faults:
        for arm in arms:
            advance(f"{fault.slug}, {arm.name}")
            folder = own / f"{fault.slug}-{arm.name}"
            cells.append(await run_cell(arm, fault, seed, folder))
            keep(cells)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return cells


def _write(file: Path, document: dict[str, Any]) -> None:
    try:
        file.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise LabError(f"cannot write {file}: {error.strerror}") from error
