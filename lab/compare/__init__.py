"""`duet compare`: both styles, side by side, on evidence.

Only the command line is here: every `duet` command loads this module, so what a comparison needs is imported
when it runs.
"""

from pathlib import Path
from typing import Annotated

import typer

from lab.errors import FAILED, LabError

INTERRUPTED = 130
SEED = 20

Quick = Annotated[
    bool, typer.Option("--quick", help="One scenario on one system, under 3 minutes (default).")
]
Full = Annotated[
    bool,
    typer.Option("--full", help="Fresh systems, service times, A/A, capacity, ablations: under 40 minutes."),
]
Times = Annotated[
    str,
    typer.Option(
        "--service-time",
        help="What services wait for outside, as email=lognormal:80ms,warehouse=constant:5ms "
        "(lognormal by its median, exponential by its mean).",
    ),
]
Errors = Annotated[
    str, typer.Option("--error-rate", help="What share of the tries fails, by service, as warehouse=1%.")
]
Rate = Annotated[float | None, typer.Option(min=1, max=10_000, help="Orders offered a second.")]
Rounds = Annotated[int | None, typer.Option(min=2, max=50, help="Rounds, a window of each arm in each.")]
Seconds = Annotated[float | None, typer.Option(min=1, max=600, help="Measured seconds of each window.")]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="NAME=FILE.toml: a variant of yours beside them (docs/lab.md). Repeatable."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of arrival times and orders: the same seed, the same load.")]
Folder = Annotated[Path, typer.Option(help="Where databases and logs are kept meanwhile: on a real disk.")]
Out = Annotated[
    Path | None, typer.Option(help="Folder for the report: report.html, report.md, compare.json, raw rows.")
]
Decision = Annotated[bool, typer.Option("--decision", help="Write decision.md into --out, too.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]


def register(app: typer.Typer) -> None:
    """Add `duet compare`."""
    app.command("compare")(compare)


def compare(
    quick: Quick = False,
    full: Full = False,
    service_time: Times = "",
    error_rate: Errors = "",
    rate: Rate = None,
    rounds: Rounds = None,
    seconds: Seconds = None,
    target: Targets = None,
    seed: Seed = SEED,
    folder: Folder = Path(".bench"),
    out: Out = None,
    decision: Decision = False,
    json: AsJson = False,
) -> None:
    """Compare both styles (and variants) in interleaved windows of open-loop load, and give verdicts.

    Exits with 0 only if every ledger balances and the generator was never the bottleneck; which style is
    better does not matter for it.
    """
    from lab.compare.command import run
    from lab.compare.shapes import Asked
    from lab.compare.simulated import parse_errors, parse_times
    from lab.reading import effect_services
    from lab.system import System
    from lab.targets import parse_option

    if quick and full:
        raise LabError("--quick and --full: give one of them")
    if decision and out is None:
        raise LabError("--decision is written into a folder: give --out DIR, too")
    services = frozenset(effect_services(System(folder)))
    asked = Asked(
        parse_times(service_time, services),
        parse_errors(error_rate, services),
        [parse_option(each) for each in target or []],
        rate,
        rounds,
        seconds,
    )
    if asked.targets and asked.settings:
        raise LabError("a target simulates nothing: leave out --service-time and --error-rate, or --target")
    try:
        passed = run(asked, full=full, seed=seed, folder=folder, out=out, decision=decision, as_json=json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if passed else FAILED)
