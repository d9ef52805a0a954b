"""What a comparison found, for a person at a terminal: the verdicts first."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.comparison import QUIET_CPU_SHARE
from lab.bench.report import say, setting_lines
from lab.compare.ablations import Ablated
from lab.compare.comparison import Comparison
from lab.compare.scenarios import Measured
from lab.compare.verdicts import EQUIVALENT, UNDECIDED, Figure, in_words

COMPARED = (
    "compared: orchestration over HTTP with choreography over JetStream, same services, same storage, "
    "every order and every message synced before it is acknowledged; ack: until the 2xx; completion: until "
    "the last effect is written; both from the intended send time; saturated cores mostly compare CPU cost"
)
LEAST_PAIRS = 6


def show(found: Comparison, console: Console) -> None:
    """Print verdicts, tables, troubles and the setting."""
    for measured in (*found.scenarios, *filter(None, [found.aa])):
        _show_scenario(measured, console)
    if found.capacity is not None:
        say(console, f"Capacity: {found.capacity.figure.sentence}", _colour(found.capacity.figure))
    if found.ablations:
        console.print(_ablations(found.ablations))
    for claim in found.claims:
        say(console, f"{claim.name}: {claim.claim} Here: {claim.holds}. {claim.found}")
    for trouble in found.troubles:
        say(console, f"FAILED: {trouble}", "bold red")
    if found.balanced:
        say(console, "every ledger balances", "green")
    for line in (COMPARED, *_doubts(found), *setting_lines(found.setting, found.seed)):
        say(console, line, "dim")


def _show_scenario(measured: Measured, console: Console) -> None:
    told = measured.scenario
    systems = "a fresh system for every window" if told.fresh else "one system for all windows"
    how = f"{told.load.rate:g} orders/s, {told.rounds} pairs of {told.load.measured_s:g} s, {systems}"
    say(console, f"{told.title} ({told.what}; {how})", "bold")
    for figure in measured.figures:
        say(console, f"  {figure.sentence}", _colour(figure))
    console.print(_latencies(measured))


def _doubts(found: Comparison) -> Iterator[str]:
    """What a reader has to know before these figures are passed on."""
    foreign = max(window.others_cpu_share or 0.0 for part in found.parts for window in part.windows)
    if foreign > QUIET_CPU_SHARE:
        yield f"the machine was not quiet: other processes used up to {foreign:.0%} of a core in a window"
    if not found.generator_first:
        yield "the load generator had no real-time priority (that takes root): it competed with the system"
    pairs = min(measured.scenario.rounds for measured in found.scenarios)
    if pairs < LEAST_PAIRS:
        yield f"{pairs} pairs are a look, not a verdict: it takes {LEAST_PAIRS} at least"


def _colour(figure: Figure) -> str | None:
    return {UNDECIDED: "yellow", EQUIVALENT: None}.get(figure.verdict, "green")


def _latencies(measured: Measured) -> Table:
    """A row for each arm: geometric means over its windows, the worst lag, and sums of what clients saw."""
    table = Table(box=SIMPLE)
    table.add_column("arm", no_wrap=True)
    headings = ("accepted", "503", "errors", "ack p50", "p99 ms", "completion p50", "p99 ms", "CPU ms")
    for heading in (*headings, "memory MB", "calls", "messages", "deliveries", "lag p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in dict.fromkeys(window.arm for window in measured.windows):
        windows = [window for window in measured.windows if window.arm == name]
        table.add_row(
            name,
            str(sum(w.accepted for w in windows)),
            str(sum(w.turned_away for w in windows)),
            str(sum(sum(w.errors.values()) for w in windows)),
            *(_mean(w.ack_ms.get(p) for w in windows) for p in ("p50", "p99")),
            *(_mean(w.completion_ms.get(p) for w in windows) for p in ("p50", "p99")),
            *(_mean(w.system_cpu_ms for w in windows), _mean(w.memory_mb for w in windows)),
            *(_mean(w.costs.calls for w in windows), _mean(w.costs.messages for w in windows)),
            _mean(w.costs.deliveries for w in windows),
            _number(max(w.generator_lag_ms.get("p99", 0.0) for w in windows)),
        )
    return table


def _mean(told: Iterable[float | None]) -> str:
    """The geometric mean; of counts, of which some are 0, there is none: then the plain one."""
    values = [value for value in told if value is not None]
    if not values:
        return "–"
    return _number(statistics.geometric_mean(values) if min(values) > 0 else statistics.fmean(values))


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
    if figure.ratio is None:
        return f"– {figure.verdict}"
    interval = in_words(figure.ratio)
    return f"{interval} {figure.verdict}" if figure.verdict in (UNDECIDED, EQUIVALENT) else interval


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
