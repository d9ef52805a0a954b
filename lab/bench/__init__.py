"""`duet bench`: what this system costs, measured on the spot.

Only the command line is here: every `duet` command loads this module, so what the bench needs is imported
when it runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from lab.bench import strain
from lab.errors import FAILED, LabError, OneLineErrors

FULL_ROUNDS, FULL_WINDOW_S, FULL_WINDOW_WARM_UP_S, FULL_LONE, LONE_WARM_UP = 2, 60.0, 3.0, 100, 10
QUICK_ROUNDS, QUICK_WINDOW_S, QUICK_WINDOW_WARM_UP_S, QUICK_LONE = 1, 3.0, 0.5, 10
QUICK_RATE = 40.0
OFFERED_OVER_GOAL = 1.04  # the last orders of a window complete after it
FULL_PAIRS, FULL_S, FULL_WARM_UP_S = 12, 2.0, 0.5
QUICK_PAIRS, QUICK_S, QUICK_WARM_UP_S = 3, 0.9, 0.3
MOST_CLIENTS = 512
INTERRUPTED = 130

Quick = Annotated[
    bool, typer.Option("--quick", help="Three short rounds in under 90 s: a look, not a verdict.")
]
Pairs = Annotated[
    int | None,
    typer.Option(min=2, max=100, help=f"Rounds: {FULL_PAIRS} if not given, {QUICK_PAIRS} with --quick."),
]
Seconds = Annotated[
    float | None,
    typer.Option(min=0.2, max=120, help=f"Measured time of each arm in a round: {FULL_S:g}, or {QUICK_S:g}."),
]
Clients = Annotated[
    str | None,
    typer.Option(
        help="Numbers of closed-loop clients, with commas (default: 1,16,64,256; --against: 1,16,64)."
    ),
]
Growth = Annotated[
    bool,
    typer.Option("--growth", help="Instead: throughput as the database grows, in 8 rounds, or 3."),
]
Sizes = Annotated[
    str | None,
    typer.Option(help="Orders there for --growth: 1000,100000,1000000, or 1000,10000,100000."),
]
Recovery = Annotated[
    bool,
    typer.Option("--recovery", help="Instead: time from SIGKILL until all is completed, in 3 rounds, or 1."),
]
Orders = Annotated[
    int | None,
    typer.Option(min=1, max=100_000, help="Unfinished orders for --recovery: 10000, or 1000."),
]
Revisions = Annotated[
    str | None,
    typer.Option(
        metavar="REV,...",
        help="Instead: the conductors of these git revisions, oldest first, and then this tree's.",
    ),
]
Folder = Annotated[
    Path, typer.Option(help="Where databases and logs are kept for the run: a folder on a real disk.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]

QuickLook = Annotated[
    bool, typer.Option("--quick", help="Mail null, a few seconds a window, no goals: a look.")
]
MailOption = Annotated[
    Literal["null", "smtp", "both"] | None,
    typer.Option(help="null: recorded only; smtp: into the embedded mailbox (default: both, or null)."),
]
Rate = Annotated[
    float | None,
    typer.Option(min=1, max=10_000, help="Orders offered a second (default: each style's goal and 4% more)."),
]
WindowSeconds = Annotated[
    float | None,
    typer.Option(min=1, max=600, help=f"A window at that rate: {FULL_WINDOW_S:g}, or {QUICK_WINDOW_S:g}."),
]
Rounds = Annotated[
    int | None, typer.Option(min=1, max=20, help=f"Rounds of all windows: {FULL_ROUNDS}, or {QUICK_ROUNDS}.")
]
StyleOption = Annotated[
    Literal["orchestration", "choreography", "both"], typer.Option(help="Measure one alone.")
]
Rates = Annotated[
    str | None,
    typer.Option(help="Instead: the cost at each rate, as 50,100,200,400,800, in windows of 15 s, or 3."),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="REV", help="Instead: beside this git revision's system, at 250 orders a second, or 40."
    ),
]
WindowPairs = Annotated[
    int | None,
    typer.Option(min=2, max=100, help="Pairs of windows for --against: 6 of 20 s by style, or 2 of 3 s."),
]
JsonFile = Annotated[Path | None, typer.Option(help="File for the whole outcome, as JSON.")]
RowsFolder = Annotated[
    Path | None, typer.Option(help="Folder for each window's orders, with both latencies, as CSV.")
]


def register(app: typer.Typer) -> None:
    """Adds `bench` and its commands to the `duet` command line."""
    bench = typer.Typer(cls=OneLineErrors, no_args_is_help=True, help="Measure what the system costs.")
    bench.callback()(_bench)
    bench.command()(conductor)
    bench.command()(styles)
    strain.register(bench)
    app.add_typer(bench, name="bench")


def _bench() -> None:
    """Measure what the system costs."""


def conductor(
    quick: Quick = False,
    pairs: Pairs = None,
    seconds: Seconds = None,
    clients: Clients = None,
    growth: Growth = False,
    sizes: Sizes = None,
    recovery: Recovery = False,
    orders: Orders = None,
    against: Revisions = None,
    folder: Folder = Path(".bench"),
    json: AsJson = False,
) -> None:
    """Measure the durable conductor beside three others on stub services: one that shares no requests, two
    that keep no journal.

    Exits with 0 only if every goal that was measured is reached and the ledger balances.
    """
    from lab.bench.choices import ConductorOptions, conductor_shape
    from lab.bench.command import run_conductor

    given = ConductorOptions(quick, pairs, seconds, clients, growth, sizes, recovery, orders, against)
    shape = conductor_shape(given)
    _end(lambda: run_conductor(shape, folder, json))


def styles(
    quick: QuickLook = False,
    mail: MailOption = None,
    rate: Rate = None,
    seconds: WindowSeconds = None,
    rounds: Rounds = None,
    style: StyleOption = "both",
    rates: Rates = None,
    against: Against = None,
    pairs: WindowPairs = None,
    folder: Folder = Path(".bench"),
    json: JsonFile = None,
    out: RowsFolder = None,
) -> None:
    """Measure both styles on a whole system of real services, in interleaved open-loop windows.

    Each round has, by style, a window at the full rate, one at half of it for half as long, and a lone
    client. Exits with 0 only if the ledger balances, no order met an error and no goal is missed.
    """
    from lab.bench.choices import StylesOptions, styles_shape
    from lab.bench.command import run_styles

    given = StylesOptions(quick, mail, rate, seconds, rounds, style, rates, against, pairs)
    shape = styles_shape(given)
    _end(lambda: run_styles(shape, folder, json, out))


def _end(run: Callable[[], bool]) -> None:
    """Ends the command by what came of a bench."""
    try:
        passed = run()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if passed else FAILED)


def parse_clients(given: str) -> tuple[int, ...]:
    """Numbers of clients from `1,16,64`, each once, in the order given. Raises LabError."""
    try:
        counts = tuple(dict.fromkeys(int(part) for part in given.split(",")))
    except ValueError:
        raise LabError(f"--clients wants numbers with commas between, as 1,16,64: not {given!r}") from None
    if not all(1 <= count <= MOST_CLIENTS for count in counts):
        raise LabError(f"--clients wants numbers from 1 to {MOST_CLIENTS}: not {given!r}")
    return counts
