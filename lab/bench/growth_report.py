"""What the growth bench found, for people as a table and lines, for programs as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.closed import others_share
from lab.bench.cost import Spread, cpu_ms, spread
from lab.bench.growth import FLAT, Growth, Outcome, name_of
from lab.bench.report import colour, say, say_ledger, say_quiet, setting_lines


@dataclass(frozen=True, slots=True)
class Row:
    """The conductor at one size over the rounds; `added` are the most orders that a round added."""

    size: int
    rate: Spread
    p50_ms: Spread
    p99_ms: Spread
    cpu_ms_per_order: Spread
    added: int


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "growth",
        "passed": outcome.passed,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "rows": [asdict(row) for row in summarise(outcome)],
        "curve": [{**asdict(each), "line": sentence(each, outcome.shape.sizes[0])} for each in outcome.curve],
        "others_cpu_share": others_share(outcome.measurements),
        "ledger": outcome.ledger.as_json(),
        "measurements": [asdict(measurement) for measurement in outcome.measurements],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the table, the ratios with their verdicts, the ledger and the setting."""
    console.print(_table(outcome))
    for each in outcome.curve:
        say(console, sentence(each, outcome.shape.sizes[0]), colour(each.verdict))
    say_quiet(console, others_share(outcome.measurements))
    say_ledger(console, outcome.ledger)
    for line in _setting(outcome):
        say(console, line, "dim")


def sentence(each: Growth, smallest: int) -> str:
    """One ratio in words: `throughput with 90,000 orders vs 1,000: 0.98 [0.95, 1.01] goal >= 0.9 reached`."""
    interval = f"{each.ratio.point:.2f} [{each.ratio.low:.2f}, {each.ratio.high:.2f}]"
    sizes = f"{each.size:,} orders vs {smallest:,}"
    return f"throughput with {sizes}: {interval} goal >= {FLAT.bound} {each.verdict}"


def summarise(outcome: Outcome) -> list[Row]:
    """The rows of the table, by size."""
    return [_row(outcome, size) for size in outcome.shape.sizes]


def _row(outcome: Outcome, size: int) -> Row:
    rounds = [m for m in outcome.measurements if m.arm == name_of(size)]
    return Row(
        size=size,
        rate=spread(m.rate for m in rounds),
        p50_ms=spread(m.latency_ms["p50"] for m in rounds),
        p99_ms=spread(m.latency_ms["p99"] for m in rounds),
        cpu_ms_per_order=spread(map(cpu_ms, rounds)),
        added=max(m.orders for m in rounds),
    )


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    rounds = f"{shape.pairs} rounds of {shape.measured_s:g} s, {shape.clients} clients"
    table = Table(title=f"The conductor by completed orders that are there: {rounds}", box=SIMPLE)
    for heading in ("orders there", "added", "orders/s", "p50 ms", "p99 ms", "CPU ms/order"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summarise(outcome):
        figures = (row.rate.told(0), row.p50_ms.told(), row.p99_ms.told(), row.cpu_ms_per_order.told())
        table.add_row(f"{row.size:,}", f"{row.added:,}", *figures)
    return table


def _setting(outcome: Outcome) -> Iterator[str]:
    yield "medians [lowest, highest] of the rounds; added: the most orders that a round added to those there"
    yield from setting_lines(outcome.setting, outcome.shape.seed)
    confidence = outcome.curve[0].ratio.confidence
    yield f"intervals: Student t on paired log-ratios of rounds, {confidence:.1%} each (95% for all)"
