"""The cost curve of both styles, for people as a table and lines, for programs as one JSON document."""

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.audit import as_document
from lab.bench.curve import Outcome
from lab.bench.report import say, setting_lines
from lab.bench.styles_report import CLOCKS, COMPARED, ledger_troubles, window_document, window_troubles


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "styles-curve",
        "passed": outcome.passed,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "points": [asdict(point) for point in outcome.points],
        "windows": [window_document(window) for window in outcome.windows],
        "ledger": as_document(outcome.ledger),
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the curve, the ledger and the setting."""
    console.print(_table(outcome))
    ledger = as_document(outcome.ledger)
    say(console, f"ledger: {ledger['accepted']} accepted, {ledger['exactly_once']} effects exactly once")
    for trouble in (*window_troubles(outcome.windows), *ledger_troubles("mail null", outcome.ledger)):
        say(console, trouble, "bold red")
    if outcome.ledger.balances:
        say(console, "the ledger balances", "green")
    foreign = max(window.others_cpu_share for window in outcome.windows)
    say(console, f"other processes of this machine used at most {foreign:.0%} of a core in a window")
    for line in (CLOCKS, COMPARED, *setting_lines(outcome.setting, outcome.shape.seed)):
        say(console, line, "dim")


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    rounds = f"medians, lowest and highest of {shape.rounds} windows of {shape.measured_s:g} s"
    table = Table(title=f"Cost by rate, mail null: {rounds}", box=SIMPLE)
    table.add_column("style", no_wrap=True)
    headings = ("offered/s", "CPU ms/order", "completed/s", "ack p50", "p99 ms", "completion p50", "p99 ms")
    for heading in (*headings, "turned away", "unfinished"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in outcome.points:
        clocks = [f"{clock[name]:.1f}" for clock in (point.ack_ms, point.completion_ms) for name in clock]
        figures = (f"{point.offered_rate:g}", point.cpu_ms.told(), point.completed_rate.told(1))
        table.add_row(point.style, *figures, *clocks, str(point.turned_away), str(point.unfinished))
    return table
