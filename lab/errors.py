"""The one error that a `duet` command ends with, and the group of commands that prints it in one line.

A person at a terminal is shown what is wrong and what to do, never a traceback; anything that is no
`LabError` is a defect of ours, and keeps its traceback.
"""

from typing import Any

import typer
from typer.core import TyperGroup

USAGE = 2
FAILED = 1


class LabError(Exception):
    """What stops a command: a sentence for the person, and the exit code (2: asked wrongly, 1: it failed)."""

    def __init__(self, message: str, exit_code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class OneLineErrors(TyperGroup):
    """A group of commands whose `LabError` becomes one line on standard error and the exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; raise `typer.Exit` with the error's own code where it fails."""
        try:
            return super().invoke(ctx)
        except LabError as error:
            typer.echo(f"duet: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
