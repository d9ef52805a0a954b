"""The commands of `duet`, each from the module that holds it."""

import typer

from lab import (
    audit,
    bench,
    change,
    compare,
    control,
    dlq,
    listen,
    order,
    participant,
    repair,
    stuck,
    timeline,
    up,
)
from lab.errors import OneLineErrors

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One checkout, orchestrated and choreographed: start it, load it, break it, audit it.",
)
for part in (
    up,
    control,
    order,
    timeline,
    audit,
    stuck,
    repair,
    participant,
    dlq,
    listen,
    bench,
    change,
    compare,
):
    part.register(app)
