"""What this tree costs beside another revision, for people as tables and lines, for programs as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.audit import as_document
from lab.bench.against import CHEAPER, Figure, Outcome, Side
from lab.bench.cost import spread
from lab.bench.report import colour, say, setting_lines
from lab.bench.styles_report import CLOCKS, ledger_troubles, window_document, window_troubles
from lab.bench.windows import Window

FIGURES = ("p50", "p99")
SHORT = 12  # of a commit's hash


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "styles-against",
        "passed": outcome.passed,
        "commit": outcome.commit,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "figures": [{**asdict(each), "line": sentence(each, outcome.commit)} for each in outcome.figures],
        "sides": [
            {
                "name": side.name,
                "windows": [window_document(window) for window in side.windows],
                "ledger": as_document(side.ledger),
            }
            for side in outcome.sides
        ],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the table, the ratios with their verdicts, the ledgers and the setting."""
    console.print(_table(outcome))
    for figure in outcome.figures:
        say(console, sentence(figure, outcome.commit), colour(figure.verdict))
    for side in outcome.sides:
        for line in ledger_lines(side):
            say(console, line, None if side.sound else "bold red")
    foreign = max(window.others_cpu_share for side in outcome.sides for window in side.windows)
    say(console, f"other processes (the system that idles, too) used at most {foreign:.0%} of a core")
    for line in _setting(outcome):
        say(console, line, "dim")


def sentence(figure: Figure, commit: str) -> str:
    """One ratio in words: `orchestration: CPU for each completed order vs 0123456789ab: 0.55 ...`."""
    ratio = figure.ratio
    interval = f"{ratio.point:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    line = f"{figure.style}: CPU for each completed order vs {commit[:SHORT]}: {interval}"
    if figure.verdict is None:
        return f"{line} (a look, not judged)"
    return f"{line} goal <= {CHEAPER.bound} {figure.verdict}"


def ledger_lines(side: Side) -> Iterator[str]:
    """One system's ledger, and what went wrong with it."""
    ledger = as_document(side.ledger)
    told = f"{ledger['accepted']} accepted, {ledger['exactly_once']} effects exactly once"
    yield f"ledger of {side.name}: {told}{': it balances' if side.ledger.balances else ''}"
    for trouble in (*window_troubles(side.windows), *ledger_troubles(side.name, side.ledger)):
        yield f"{side.name}: {trouble}"


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    rounds = f"medians, lowest and highest of {shape.pairs} windows of {shape.measured_s:g} s"
    table = Table(title=f"This tree and {outcome.commit[:SHORT]}, mail null: {rounds}", box=SIMPLE)
    for heading in ("style", "system"):
        table.add_column(heading, no_wrap=True)
    headings = ("offered/s", "CPU ms/order", "completed/s", "ack p50", "p99 ms", "completion p50", "p99 ms")
    for heading in (*headings, "turned away"):
        table.add_column(heading, justify="right", no_wrap=True)
    for style, rate in shape.rates.items():
        for side in outcome.sides:
            windows = [window for window in side.windows if window.style == style]
            away = str(sum(window.turned_away for window in windows))
            table.add_row(style, side.name, f"{rate:g}", *_figures(windows), away)
    return table


def _figures(windows: list[Window]) -> Iterator[str]:
    yield spread(window.system_cpu_ms for window in windows).told()
    yield spread(window.completed_rate for window in windows).told(1)
    for clocks in ([window.ack_ms for window in windows], [window.completion_ms for window in windows]):
        for name in FIGURES:
            yield spread(clock[name] for clock in clocks).told(1)


def _setting(outcome: Outcome) -> Iterator[str]:
    yield CLOCKS
    yield "compared: each revision's own code, its `duet up` too, on the same dependencies and machine"
    yield from setting_lines(outcome.setting, outcome.shape.seed)
    confidence = outcome.figures[0].ratio.confidence
    yield f"intervals: Student t on paired log-ratios of windows, {confidence:.1%} each (95% for all)"
