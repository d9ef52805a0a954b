"""`duet bench slow`, `overload` and `storm`: how the system does when a service does badly.

Only the command line is here: every `duet` command loads this module, so what the benches need is imported
when they run. It refuses shapes that cannot show what they are for, such as a run longer than it is bounded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from lab.errors import FAILED, LabError

if TYPE_CHECKING:
    from collections.abc import Coroutine

INTERRUPTED = 130
SLOW_RATE = 100.0
FULL_PAIRS, FULL_S, FULL_WARM_UP_S = 8, 10.0, 1.0
QUICK_PAIRS, QUICK_S, QUICK_WARM_UP_S = 2, 1.5, 0.4

OVERLOADED_CAPACITY, OVERLOADED_TIMES, MOST_OFFERED = 100.0, 10.0, 2_000.0
WARM_UP_S, QUICK_WARM_S = 2.0, 1.0
BEFORE_S, QUICK_BEFORE_S = 8.0, 3.0
OVERLOAD_S, QUICK_OVERLOAD_S = 30.0, 2.0
AFTER_OVERLOAD_S, QUICK_AFTER_OVERLOAD_S = 15.0, 5.0

STORM_CAPACITY, STORM_LOAD, STORM_LEFT = 250.0, 0.8, 0.2
STORM_S, QUICK_STORM_S = 10.0, 2.0
AFTER_STORM_S, QUICK_AFTER_STORM_S = 45.0, 9.0

Outcome = TypeVar("Outcome")

Look = Annotated[bool, typer.Option("--quick", help="In under a minute or so, and no goals: a look.")]
Pairs = Annotated[
    int | None,
    typer.Option(min=2, max=100, help=f"Rounds: {FULL_PAIRS} if not given, {QUICK_PAIRS} with --quick."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        min=0.2, max=120, help=f"Measured time of each conductor in a round: {FULL_S:g}, or {QUICK_S:g}."
    ),
]
SlowRate = Annotated[
    float, typer.Option(min=10, max=500, help="Orders offered a second: so few that both manage them.")
]
Capacity = Annotated[
    float, typer.Option(min=10, max=1_000, help="Orders a second that the warehouse manages.")
]
Times = Annotated[float, typer.Option(min=1.5, max=50, help="How many times the capacity is offered.")]
OverloadSeconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", min=1, max=120, help=f"How long it is: {OVERLOAD_S:g}, or {QUICK_OVERLOAD_S:g}."
    ),
]
StormSeconds = Annotated[
    float | None,
    typer.Option("--seconds", min=1, max=60, help=f"How long it is: {STORM_S:g}, or {QUICK_STORM_S:g}."),
]
AfterSeconds = Annotated[
    float | None,
    typer.Option("--after", min=4, max=300, help="Seconds for which orders are offered afterwards."),
]
StyleOption = Annotated[
    Literal["orchestration", "choreography", "both"], typer.Option(help="Measure one alone.")
]
Folder = Annotated[
    Path, typer.Option(help="Where databases and logs are kept for the run: a folder on a real disk.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else.")]


def register(bench: typer.Typer) -> None:
    """Adds the three commands to `duet bench`."""
    for command in (slow, overload, storm):
        bench.command()(command)


def slow(
    quick: Look = False,
    pairs: Pairs = None,
    seconds: Seconds = None,
    rate: SlowRate = SLOW_RATE,
    folder: Folder = Path(".bench"),
    json: AsJson = False,
) -> None:
    """Measure whether slow and hanging services suffer from a conductor that batches its calls.

    The conductor with batching and the one without, on stub services that take 1, 10 and 80 ms, or hang now
    and then. Exits with 0 only if completion is no worse with batching (p50 and p99, at most 5 %) and the
    ledgers balance.
    """
    from lab.bench import slow as bench
    from lab.bench.slow_report import as_json, show

    shape = bench.Shape(
        pairs=pairs or (QUICK_PAIRS if quick else FULL_PAIRS),
        measured_s=seconds or (QUICK_S if quick else FULL_S),
        warm_up_s=QUICK_WARM_UP_S if quick else FULL_WARM_UP_S,
        rate=rate,
        judged=not quick,
    )
    outcome = _run(folder, shape.steps, lambda own, advance: bench.run(shape, own, advance))
    _print(as_json(outcome) if json else None, lambda console: show(outcome, console))
    raise typer.Exit(0 if outcome.passed else FAILED)


def overload(
    quick: Look = False,
    capacity: Capacity = OVERLOADED_CAPACITY,
    times: Times = OVERLOADED_TIMES,
    seconds: OverloadSeconds = None,
    after: AfterSeconds = None,
    style: StyleOption = "both",
    folder: Folder = Path(".bench"),
    json: AsJson = False,
) -> None:
    """Offer a whole system ten times what one of its services manages, and see it get over that.

    Each style has a system of its own. Exits with 0 only if the ledgers balance, no order met an error but
    a 503, and the goals are met: the orchestrated style completes at least 90 % of the capacity meanwhile
    and is back to normal within 5 s; the choreographed one turns nobody away.
    """
    from lab.bench import overload as bench
    from lab.bench.strain_report import as_json, show_overload

    if capacity * times > MOST_OFFERED:
        raise LabError(
            f"--capacity times --times is {capacity * times:g} orders a second: at most {MOST_OFFERED:g} here"
        )
    shape = bench.Shape(
        styles=_styles(style),
        capacity=capacity,
        times=times,
        warm_up_s=QUICK_WARM_S if quick else WARM_UP_S,
        before_s=QUICK_BEFORE_S if quick else BEFORE_S,
        overload_s=seconds or (QUICK_OVERLOAD_S if quick else OVERLOAD_S),
        after_s=after or (QUICK_AFTER_OVERLOAD_S if quick else AFTER_OVERLOAD_S),
        judged=not quick,
    )
    outcome = _run(folder, shape.steps, lambda own, advance: bench.run(shape, own, advance))
    _print(as_json(outcome) if json else None, lambda console: show_overload(outcome, console))
    raise typer.Exit(0 if outcome.passed else FAILED)


def storm(
    quick: Look = False,
    capacity: Capacity = STORM_CAPACITY,
    seconds: StormSeconds = None,
    after: AfterSeconds = None,
    style: StyleOption = "both",
    folder: Folder = Path(".bench"),
    json: AsJson = False,
) -> None:
    """Slow one service of a whole system for a moment, and see whether retries make it last.

    At four fifths of its capacity the warehouse has a fifth of it left for 10 s. Each style has a system of
    its own. Exits with 0 only if the ledgers balance, no order met an error but a 503, and the goals are met:
    at most 1.2 attempts an order, and within 5 s as many are completed as are offered.
    """
    from lab.bench import storm as bench
    from lab.bench.strain_report import as_json, show_storm

    shape = bench.Shape(
        styles=_styles(style),
        capacity=capacity,
        load=STORM_LOAD,
        left=STORM_LEFT,
        warm_up_s=QUICK_WARM_S if quick else WARM_UP_S,
        before_s=QUICK_BEFORE_S if quick else BEFORE_S,
        storm_s=seconds or (QUICK_STORM_S if quick else STORM_S),
        after_s=after or (QUICK_AFTER_STORM_S if quick else AFTER_STORM_S),
        judged=not quick,
    )
    outcome = _run(folder, shape.steps, lambda own, advance: bench.run(shape, own, advance))
    _print(as_json(outcome) if json else None, lambda console: show_storm(outcome, console))
    raise typer.Exit(0 if outcome.passed else FAILED)


def _styles(chosen: str) -> tuple[str, ...]:
    return ("orchestration", "choreography") if chosen == "both" else (chosen,)


def _run(
    folder: Path,
    steps: int,
    run: "Callable[[Path, Callable[[str], None]], Coroutine[Any, Any, Outcome]]",
) -> Outcome:
    from lab.long_run import run_in

    try:
        return run_in(folder, "bench", steps, run)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _print(document: dict[str, Any] | None, show: Callable[[Any], None]) -> None:
    """The document as JSON, if there is one; else the tables."""
    import sys

    from lab.bench.command import pretty
    from lab.long_run import page

    if document is None:
        show(page())
        return
    sys.stdout.write(pretty(document).decode())
