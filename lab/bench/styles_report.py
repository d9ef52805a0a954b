"""What the styles bench found, for people as tables and lines, for programs as one JSON document."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.audit import as_document
from lab.bench.goals import Goal
from lab.bench.report import say, setting_lines
from lab.bench.styles_run import Found, Outcome
from lab.bench.windows import Window
from lab.ledger import TROUBLES, Report

CLOCKS = (
    "ack: from the intended time to the 2xx (the order is synced on checkout's disk, in both styles); "
    "completion: from the intended time to completed_at, when checkout heard of the last effect; "
    "a lone order's: until its 201, all steps final"
)
COMPARED = (
    "compared: orchestration over HTTP with choreography over JetStream (every message synced), same "
    "handlers, same storage; two saturated cores mostly compare CPU cost"
)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "styles",
        "passed": outcome.passed,
        "judged": outcome.shape.judged,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "goals": [{**asdict(goal), "met": goal.met} for found in outcome.found for goal in found.goals],
        "systems": [_system(found) for found in outcome.found],
    }


def _system(found: Found) -> dict[str, Any]:
    return {
        "mail": found.mail,
        "idle_mb": found.idle_mb,
        "windows": [window_document(window) for window in found.windows],
        "lone": [asdict(each) for each in found.alone],
        "ledger": as_document(found.ledger),
    }


def window_document(window: Window) -> dict[str, Any]:
    """One window as plain JSON values."""
    return {**asdict(window), "system_cpu_ms": window.system_cpu_ms}


def show(outcome: Outcome, console: Console) -> None:
    """Prints for each system its tables, then the goals, the ledger and the setting."""
    for found in outcome.found:
        console.print(_windows_table(found))
        console.print(_cpu_table(found))
        for line in _lines(found):
            say(console, line)
        for goal in found.goals:
            say(console, sentence(goal), {True: "green", False: "bold red", None: "bold yellow"}[goal.met])
        for trouble in troubles(found):
            say(console, trouble, "bold red")
        if found.ledger.balances:
            say(console, f"mail {found.mail}: the ledger balances", "green")
    if not outcome.shape.judged:
        say(console, "a quick look: no goal was judged")
    for line in (CLOCKS, COMPARED, *setting_lines(outcome.setting, outcome.shape.seed)):
        say(console, line, "dim")


def sentence(goal: Goal) -> str:
    """One goal in words: `orchestration: completed orders: 311.2/s, at least 300/s: met`."""
    space = "" if goal.unit.startswith("/") else " "
    kind = "at least" if goal.kind == "at_least" else "below"
    verdict = {True: "met", False: "MISSED", None: "not measured at this rate"}[goal.met]
    figures = f"{goal.found:,.1f}{space}{goal.unit}, {kind} {goal.bound:g}{space}{goal.unit}"
    return f"{goal.name} (mail {goal.mail}): {figures}: {verdict}"


def troubles(found: Found) -> Iterator[str]:
    """What a run must not have: orders that met an error, a ledger that does not balance."""
    yield from window_troubles(found.windows)
    for alone in found.alone:
        for slug, count in alone.errors.items():
            yield f"{alone.style}, alone: {count} orders ended as {slug}"
    yield from ledger_troubles(f"mail {found.mail}", found.ledger)


def window_troubles(windows: Iterable[Window]) -> Iterator[str]:
    """The orders that met an error, by window and slug."""
    for window in windows:
        for slug, count in window.errors.items():
            yield f"{window.style}, {window.load}, round {window.round}: {count} orders ended as {slug}"


def ledger_troubles(of: str, ledger: Report) -> Iterator[str]:
    """What does not balance in the ledger of a system, if anything does not."""
    if not ledger.balances:
        told = as_document(ledger)
        wrong = {name: told[name] for name in ("lost", *TROUBLES) if told[name]}
        yield f"{of}: THE LEDGER DOES NOT BALANCE: {wrong}, ids {told['ids']}"


def _windows_table(found: Found) -> Table:
    table = Table(title=f"Both styles on the whole system, mail {found.mail}", box=SIMPLE)
    for heading in ("load", "style"):
        table.add_column(heading, no_wrap=True)
    headings = (
        "offered/s",
        "accepted/s",
        "turned away",
        "completed/s",
        "ack p50",
        "p99 ms",
        "completion p50",
        "p99 ms",
    )
    for heading in (*headings, "drain s", "lag p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for window in _sorted(found):
        table.add_row(
            f"{window.load} {window.round}",
            window.style,
            f"{window.offered_rate:,.0f}",
            f"{window.accepted_rate:,.1f}",
            str(window.turned_away),
            f"{window.completed_rate:,.1f}",
            *_p50_p99(window.ack_ms),
            *_p50_p99(window.completion_ms),
            f"{window.drain_s:.2f}",
            f"{window.generator_lag_ms['p99']:.1f}",
        )
    return table


def _cpu_table(found: Found) -> Table:
    table = Table(title="CPU ms for each completed order, by process", box=SIMPLE)
    for heading in ("load", "style"):
        table.add_column(heading, no_wrap=True)
    names = list(dict.fromkeys(name for window in found.windows for name in window.cpu_ms))
    for name in ("system", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for window in _sorted(found):
        spent = [f"{window.cpu_ms.get(name, 0.0):.2f}" for name in names]
        table.add_row(f"{window.load} {window.round}", window.style, f"{window.system_cpu_ms:.2f}", *spent)
    return table


def _sorted(found: Found) -> list[Window]:
    return sorted(found.windows, key=lambda window: (window.load, window.style, window.round))


def _lines(found: Found) -> Iterator[str]:
    for each in found.alone:
        p50, p99 = _p50_p99(each.completion_ms)
        yield f"a lone order, {each.style}: completion p50 {p50} ms, p99 {p99} ms ({each.orders} orders)"
    idle = ", ".join(f"{name} {size:.0f}" for name, size in found.idle_mb.items())
    yield f"idle memory: {sum(found.idle_mb.values()):.0f} MB ({idle})"
    foreign = max(window.others_cpu_share for window in found.windows)
    yield f"other processes of this machine used at most {foreign:.0%} of a core in a window"
    if any(window.undelivered for window in found.windows):
        left = ", ".join(f"{w.style} {w.load} {w.undelivered}" for w in found.windows)
        yield f"mails still to be delivered at a window's end (their CPU time is not above): {left}"
    ledger = as_document(found.ledger)
    yield f"ledger: {ledger['accepted']} accepted, {ledger['exactly_once']} effects exactly once"


def _p50_p99(quantiles: dict[str, float]) -> tuple[str, str]:
    return f"{quantiles['p50']:.1f}" if quantiles else "-", f"{quantiles['p99']:.1f}" if quantiles else "-"
