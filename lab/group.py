"""A command of `duet` with verbs below it: how it is added, and what its verbs have in common.

It refuses to go on with what a person has to confirm where there is no person to ask.
"""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lab.errors import LabError, OneLineErrors

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def add_group(app: typer.Typer, name: str, what: str, verbs: dict[str, Callable[..., Any]]) -> None:
    """Add the command `name` with its verbs; `what` is its help."""
    commands = typer.Typer(cls=OneLineErrors, no_args_is_help=True, rich_markup_mode="markdown", help=what)
    for verb, run in verbs.items():
        commands.command(verb)(run)
    app.add_typer(commands, name=name)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a person, unless `yes`; raise `LabError` where nobody can be asked, `typer.Abort` for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise LabError(f"{question} Nobody can be asked here: say --yes")
    typer.confirm(question, abort=True)
