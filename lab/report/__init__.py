"""`duet report DIR`: one page from what `duet compare`, `duet faults` and `duet change` left in a folder.

Only the command line is here: every `duet` command loads this module, so what a page needs is imported when
it is made.
"""

from pathlib import Path
from typing import Annotated

import typer

FOLDER_HELP = "The folder that --out of duet compare, duet faults or duet change named."


def register(app: typer.Typer) -> None:
    """Add `duet report`."""
    app.command("report")(report)


def report(
    folder: Annotated[Path, typer.Argument(help=FOLDER_HELP)],
    decision: Annotated[
        bool, typer.Option("--decision", help="Write decision.md, too: a record for a team to complete.")
    ] = False,
) -> None:
    """Make report.html and report.md anew from the data in a folder."""
    for file in render(folder, decision=decision):
        typer.echo(str(file))


def render(folder: Path, *, decision: bool = False) -> list[Path]:
    """Write the page, the Markdown with its pictures and, if asked for, the decision record.

    Returns the files, the page first. Raises `LabError` where there are no data, or they cannot be read.
    """
    from lab.report.pages import write

    return write(folder, decision=decision)
