"""`duet faults`: what becomes of orders under every fault, in both styles and in what people usually write.

Only the command line is here: every `duet` command loads this module, so what the matrix needs is imported
when it runs.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lab.errors import FAILED

INTERRUPTED = 130
SEED = 20

Style = Literal["orchestration", "choreography", "both", "all"]


def register(app: typer.Typer) -> None:
    """Add `duet faults`."""
    app.command("faults")(faults)


def faults(
    style: Annotated[
        Style, typer.Option(help="One style; both: both styles; all: the two naive arms, too.")
    ] = "all",
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="These faults only; again, or with commas, for several."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the faults, and run none.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for faults.json, and for the report made from it.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where databases and logs are kept for the run; on a disk.")
    ] = Path(".bench"),
    seed: Annotated[int, typer.Option(min=0, help="Of keys and of what happens on the wires.")] = SEED,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Break a running system in every way, under load, on each arm, and count what became of the orders.

    The arms are both styles and, beside them, a naive conductor (no journal) and a naive publisher (publishes
    after the commit, acknowledges by delivery). Each fault meets each arm on a fresh system, with the same
    orders at the same times. The exit code is 0 if both styles lost nothing, did nothing twice and left
    nothing stuck; the naive arms are shown, not judged.
    """
    from lab.faults.command import list_faults, run

    if list_:
        list_faults(as_json=as_json)
        return
    try:
        passed = run(style, only or (), out, folder, seed, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if passed else FAILED)
