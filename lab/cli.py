"""The commands of `duet`, each from the module that holds it."""

import typer

from lab import (
    audit,
    bench,
    change,
    compare,
    conform,
    control,
    dlq,
    faults,
    listen,
    order,
    participant,
    repair,
    report,
    stuck,
    timeline,
    up,
)
from lab.errors import OneLineErrors
from lab.wire import commands as wire

app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One checkout, orchestrated and choreographed: start it, load it, break it, audit it, compare it.",
)
PARTS = (
    up,
    control,
    wire,
    order,
    timeline,
    audit,
    stuck,
    repair,
    participant,
    dlq,
    listen,
    bench,
    compare,
    conform,
    faults,
    change,
    report,
)
for part in PARTS:
    part.register(app)
