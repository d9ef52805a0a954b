"""What the recovery bench found, for people as a table and lines, for programs as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.cost import spread
from lab.bench.recovery import Outcome
from lab.bench.report import say, setting_lines
from lab.bench.stub import SERVICES


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "recovery",
        "passed": outcome.passed,
        "line": sentence(outcome),
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "recoveries": [asdict(each) for each in outcome.recoveries],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the table, the figure, the ledger and the setting."""
    console.print(_table(outcome))
    say(console, sentence(outcome))
    for line in ledger_lines(outcome):
        say(console, line, None if outcome.passed else "bold red")
    for line in setting_lines(outcome.setting, outcome.shape.seed):
        say(console, line, "dim")


def sentence(outcome: Outcome) -> str:
    """The figure in words: `10,000 unfinished orders: completed in 9.1 [8.9, 9.4] s from the start ...`."""
    start = spread(each.from_start_s for each in outcome.recoveries).told(1)
    ready = spread(each.from_ready_s for each in outcome.recoveries).told(1)
    rate = spread(each.rate for each in outcome.recoveries).told(0)
    return (
        f"{outcome.shape.orders:,} unfinished orders: completed in {start} s from the start of the new "
        f"process, {ready} s from its readiness, {rate} a second (median [lowest, highest]; no goal)"
    )


def ledger_lines(outcome: Outcome) -> Iterator[str]:
    """Whether each round's orders are all completed, and each told to every service that it is owed to."""
    for number, each in enumerate(outcome.recoveries, 1):
        for problem in each.problems:
            yield f"round {number}: {problem}"
    orders = sum(each.orders for each in outcome.recoveries)
    repeats = {name: sum(each.repeats[name] for each in outcome.recoveries) for name in SERVICES}
    yield f"ledger: {orders:,} orders were accepted before the kill; calls that were repeats: {repeats}"
    yield "the ledger balances" if outcome.passed else "THE LEDGER DOES NOT BALANCE"


def _table(outcome: Outcome) -> Table:
    table = Table(title=f"Recovery of {outcome.shape.orders:,} unfinished orders after SIGKILL", box=SIMPLE)
    for heading in ("round", "ready s", "all from start s", "from readiness s", "orders/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, each in enumerate(outcome.recoveries, 1):
        times = (f"{each.ready_s:.2f}", f"{each.from_start_s:.2f}", f"{each.from_ready_s:.2f}")
        table.add_row(str(number), *times, f"{each.rate:,.0f}")
    return table
