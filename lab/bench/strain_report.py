"""What the overload and the storm bench found: for people a table with a column for each style, and goals.

For programs it is one JSON document, with the whole ledger's counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.audit import as_document
from lab.bench import overload, storm
from lab.bench.course import FULL, SPAN_S, Bound
from lab.bench.report import say, setting_lines
from lab.ledger import TROUBLES, Report

NEVER = "not in time"

Outcome = overload.Outcome | storm.Outcome
Found = overload.Found | storm.Found


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say, null: it never came to that."""
    return {
        "bench": "overload" if isinstance(outcome.shape, overload.Shape) else "storm",
        "passed": outcome.passed,
        "judged": outcome.shape.judged,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "styles": [_style(found) for found in outcome.found],
    }


def _style(found: Found) -> dict[str, Any]:
    goals = [{**asdict(goal), "met": goal.met, "line": sentence(goal)} for goal in found.goals]
    return {**asdict(found), "passed": found.passed, "goals": goals, "ledger": as_document(found.ledger)}


def show_overload(outcome: overload.Outcome, console: Console) -> None:
    """Prints the table, the goals, the ledgers and the setting."""
    shape = outcome.shape
    title = (
        f"The warehouse manages {shape.capacity:g} orders/s: "
        f"{shape.capacity * shape.times:g}/s for {shape.overload_s:g} s, then {shape.usual_rate:g}/s"
    )
    figures: Mapping[str, Callable[[overload.Found], str]] = {
        "offered": lambda found: str(found.due),
        "accepted": lambda found: str(found.accepted),
        "turned away (503)": lambda found: str(found.turned_away),
        "turned away afterwards": lambda found: str(found.turned_away_after),
        "completed a second meanwhile": lambda found: f"{found.goodput:,.1f}",
        "ms until a 503, p50 / p99": lambda found: _p50_p99(found.refusal_ms),
        "ms until a 2xx, p50 / p99": lambda found: _p50_p99(found.ack_ms),
        "ms until completed, before, p50 / p99": lambda found: _p50_p99(found.before_ms),
        "ms until completed, p50 / p99": lambda found: _p50_p99(found.completion_ms),
        "back to normal after, s": lambda found: _seconds(found.normal_after_s),
        "backlog at the end": lambda found: str(found.backlog),
        "the last of it completed after, s": lambda found: _seconds(found.drained_after_s),
        "generator's lag p99, ms": lambda found: f"{found.generator_lag_ms['p99']:.1f}",
    }
    console.print(_table(title, outcome.found, figures))
    _tell(outcome, console, _usual(outcome.found))


def show_storm(outcome: storm.Outcome, console: Console) -> None:
    """Prints the table, the goals, the ledgers and the setting."""
    shape = outcome.shape
    title = (
        f"{shape.rate:g} orders/s for a warehouse that manages {shape.capacity:g}, "
        f"and {shape.left:.0%} of it for {shape.storm_s:g} s"
    )
    figures: Mapping[str, Callable[[storm.Found], str]] = {
        "offered while it was slow": lambda found: str(found.due),
        "accepted": lambda found: str(found.accepted),
        "turned away (503)": lambda found: str(found.turned_away),
        "turned away afterwards": lambda found: str(found.turned_away_after),
        "attempts an order while it was slow": lambda found: f"{found.attempts_while_low:.2f}",
        "attempts an order until all was quiet": lambda found: f"{found.attempts_in_all:.2f}",
        "ms until completed, before, p50 / p99": lambda found: _p50_p99(found.before_ms),
        "ms until completed, p50 / p99": lambda found: _p50_p99(found.completion_ms),
        "full goodput after, s": lambda found: _seconds(found.full_after_s),
        "back to normal after, s": lambda found: _seconds(found.normal_after_s),
        "backlog when it was over": lambda found: str(found.backlog),
        "the last of it completed after, s": lambda found: _seconds(found.drained_after_s),
        f"backlog {overload.LONGEST_RECOVERY_S:g} s later": lambda found: str(found.backlog_soon),
        "generator's lag p99, ms": lambda found: f"{found.generator_lag_ms['p99']:.1f}",
    }
    console.print(_table(title, outcome.found, figures))
    full = (
        f"full goodput: from then on at least {FULL:.0%} of the offered rate is completed in every "
        f"{SPAN_S:g} s; attempts are counted when they end"
    )
    _tell(outcome, console, full, _usual(outcome.found))


def sentence(goal: Bound) -> str:
    """One goal in words: `orchestration: back to normal after: 3.1 s, at most 5 s: met`."""
    space = "" if goal.unit in ("", "/s") else " "
    kind = "at least" if goal.kind == "at_least" else "at most"
    found = NEVER if goal.found is None else f"{goal.found:,.2f}{space}{goal.unit}"
    verdict = "met" if goal.met else "MISSED"
    return f"{goal.name}: {found}, {kind} {goal.bound:g}{space}{goal.unit}: {verdict}"


def troubles(style: str, errors: Mapping[str, int], ledger: Report) -> Iterator[str]:
    """What a run must not have: orders that met an error, a ledger that does not balance."""
    for slug, count in errors.items():
        yield f"{style}: {count} orders ended as {slug}"
    if not ledger.balances:
        told = as_document(ledger)
        wrong = {name: told[name] for name in ("lost", *TROUBLES) if told[name]}
        yield f"{style}: THE LEDGER DOES NOT BALANCE: {wrong}, ids {told['ids']}"


def _tell(outcome: Outcome, console: Console, *notes: str) -> None:
    """Everything below the table."""
    for found in outcome.found:
        for goal in found.goals:
            say(console, sentence(goal), "green" if goal.met else "bold red")
        for trouble in troubles(found.style, found.errors, found.ledger):
            say(console, trouble, "bold red")
        if found.ledger.balances:
            say(console, f"{found.style}: the ledger balances ({found.ledger.accepted} accepted)", "green")
    if not outcome.shape.judged:
        say(console, "a quick look: no goal was judged")
    for line in (*notes, *setting_lines(outcome.setting, outcome.shape.seed)):
        say(console, line, "dim")


def _usual(found: Sequence[Found]) -> str:
    usual = ", ".join(f"{each.style} {each.usual_ms:,.0f} ms" for each in found)
    return (
        f"back to normal: all orders due in the next {SPAN_S:g} s are accepted, and completed within {usual}"
    )


def _table(title: str, found: Sequence[Any], figures: Mapping[str, Callable[[Any], str]]) -> Table:
    table = Table(title=title, box=SIMPLE)
    table.add_column("", no_wrap=True)
    for each in found:
        table.add_column(each.style, justify="right", no_wrap=True)
    for name, tell in figures.items():
        table.add_row(name, *(tell(each) for each in found))
    return table


def _p50_p99(quantiles: Mapping[str, float]) -> str:
    return f"{quantiles['p50']:,.0f} / {quantiles['p99']:,.0f}" if quantiles else "-"


def _seconds(seconds: float | None) -> str:
    return NEVER if seconds is None else f"{seconds:.1f}"
