"""`duet change`: what a change costs in each style, by making it on a running system.

Only the command line is here: every `duet` command loads this module, so what the lab of changes needs is
imported when it runs.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lab.errors import FAILED, LabError

INTERRUPTED = 130

Style = Literal["orchestration", "choreography", "settings", "both"]


def register(app: typer.Typer) -> None:
    """Add `duet change`."""
    app.command("change")(change)


def change(
    scenario: Annotated[str, typer.Argument(help="A folder of changes/, its number, or all.")],
    edited: Annotated[
        str | None, typer.Argument(metavar="[STYLE]", help="With --edit: whose patches to make anew.")
    ] = None,
    style: Annotated[
        Style, typer.Option(help="One arm alone; both: every arm that the scenario has.")
    ] = "both",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the report (changes.html, .md, .json, report.html) and its pictures."),
    ] = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Make the patches of one scenario and style anew, in a shell.")
    ] = False,
    folder: Annotated[
        Path, typer.Option(help="Where scratch trees, databases and logs are kept for the run.")
    ] = Path(".change"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Carry out a change on a running system, under load, in each style, and measure what it costs.

    The tree itself is not touched: patches are applied to scratch copies. The exit code is 0 if every change
    came about, and no order was lost or doubled.
    """
    from lab.change.command import run
    from lab.change.editing import edit_patches

    measured = out is not None or as_json or style != "both"
    if edit != (edited is not None) or (edit and measured):
        raise LabError("say duet change --edit SCENARIO STYLE, or duet change SCENARIO [--style STYLE]")
    if edited is not None:
        edit_patches(scenario, edited, folder)
        return
    try:
        sound = run(scenario, style, out, folder, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if sound else FAILED)
