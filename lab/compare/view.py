"""What a comparison found, for a person at a terminal: the verdicts first."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.report import say, setting_lines
from lab.compare.ablations import Ablated
from lab.compare.comparison import Comparison
from lab.compare.scenarios import Measured
from lab.compare.verdicts import EQUIVALENT, UNDECIDED, Figure

COMPARED = (
    "compared: orchestration over HTTP with choreography over JetStream, same services, same storage, "
    "every order and every message synced before it is acknowledged; ack: until the 2xx; completion: until "
    "the last effect is committed; both from the intended send time"
)


def show(found: Comparison, console: Console) -> None:
    """Print verdicts, tables, troubles and the setting."""
    for measured in (*found.scenarios, *filter(None, [found.aa])):
        console.print(_verdicts(measured.scenario.title, measured.figures))
        console.print(_latencies(measured))
    if found.capacity is not None:
        console.print(_verdicts("Capacity", [found.capacity.figure]))
    if found.ablations:
        console.print(_ablations(found.ablations))
    for claim in found.claims:
        say(console, f"{claim.name}: {claim.claim} Here: {claim.holds}. {claim.found}")
    for trouble in found.troubles:
        say(console, f"FAILED: {trouble}", "bold red")
    if not found.troubles:
        say(console, "every ledger balances", "green")
    for line in (COMPARED, *setting_lines(found.setting, found.seed)):
        say(console, line, "dim")


def _verdicts(title: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=title, box=SIMPLE)
    names = list(dict.fromkeys(name for figure in figures for name in (figure.a, figure.b)))
    table.add_column("figure", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for heading in ("ratio", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("better is")
    for figure in figures:
        values = {figure.a: figure.a_value, figure.b: figure.b_value}
        shown = [_number(values.get(name)) for name in names]
        table.add_row(f"{figure.kind.title}, {figure.kind.unit}", *shown, *_ratio(figure), _verdict(figure))
    return table


def _ratio(figure: Figure) -> tuple[str, str]:
    if figure.ratio is None:
        return "–", "–"
    return f"{figure.ratio.point:.2f}", f"{figure.ratio.low:.2f} to {figure.ratio.high:.2f}"


def _verdict(figure: Figure) -> str:
    if figure.verdict == UNDECIDED:
        return f"undecided ({figure.why or f'would have seen {figure.smallest:.2f}'})"
    return "neither: equivalent" if figure.verdict == EQUIVALENT else figure.verdict


def _latencies(measured: Measured) -> Table:
    table = Table(box=SIMPLE)
    table.add_column("window", no_wrap=True)
    headings = ("accepted", "503", "errors", "ack p50", "p99 ms", "completion p50", "p99 ms", "CPU ms")
    for heading in (*headings, "calls", "messages", "lag p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for w in measured.windows:
        table.add_row(
            f"{w.round} {w.arm}",
            str(w.accepted),
            str(w.turned_away),
            str(sum(w.errors.values())),
            *(_number(told.get(p)) for told in (w.ack_ms, w.completion_ms) for p in ("p50", "p99")),
            _number(w.system_cpu_ms),
            _number(w.costs.calls),
            _number(w.costs.messages),
            _number(w.generator_lag_ms.get("p99")),
            style="red" if w.trouble else "",
        )
    return table


def _ablations(found: Sequence[Ablated]) -> Table:
    table = Table(title="What each part costs: without it, in relation to as it is", box=SIMPLE)
    table.add_column("without")
    table.add_column("style")
    slugs = [figure.kind for figure in found[0].figures]
    for kind in slugs:
        table.add_column(kind.title, justify="right")
    for each in found:
        cells: list[Any] = [_cell(figure) for figure in each.figures]
        table.add_row(each.ablation.title, each.style, *cells)
    return table


def _cell(figure: Figure) -> str:
    point, interval = _ratio(figure)
    return f"{point} ({interval}){'' if figure.verdict != UNDECIDED else ' undecided'}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
