"""What each revision brought, for people as tables and lines, for programs as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.closed import others_share
from lab.bench.cost import Cost, Spread, cost_curve, cost_table, spread
from lab.bench.report import say, say_ledger, say_quiet, setting_lines
from lab.bench.steps import CONFIDENCE, Outcome, Step


@dataclass(frozen=True, slots=True)
class Row:
    """The conductor of one revision with so many clients, over the rounds."""

    clients: int
    arm: str
    rate: Spread
    p50_ms: Spread
    p99_ms: Spread


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "steps",
        "passed": outcome.passed,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "commits": dict(outcome.commits),
        "rows": [asdict(row) for row in summarise(outcome)],
        "cost_curve": [asdict(cost) for cost in _costs(outcome)],
        "brought": [{**asdict(step), "line": sentence(step)} for step in outcome.brought],
        "others_cpu_share": others_share(outcome.measurements),
        "ledger": outcome.ledger.as_json(),
        "measurements": [asdict(measurement) for measurement in outcome.measurements],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the tables, what each revision brought, the ledger and the setting."""
    console.print(_table(outcome))
    console.print(cost_table(_costs(outcome)))
    for step in outcome.brought:
        say(console, sentence(step))
    say_quiet(console, others_share(outcome.measurements))
    say_ledger(console, outcome.ledger)
    for line in _setting(outcome):
        say(console, line, "dim")


def sentence(step: Step) -> str:
    """What one brought, in words: `CPU of this-tree vs 0123456789ab, clients 64: 0.91 [0.90, 0.92]`."""
    ratio = step.cpu
    interval = f"{ratio.point:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"CPU of {step.arm} vs {step.before}, clients {step.clients}: {interval}"


def summarise(outcome: Outcome) -> list[Row]:
    """The rows of the table, by number of clients, oldest first."""
    return [_row(outcome, clients, arm) for clients in outcome.shape.clients for arm in outcome.arms]


def _row(outcome: Outcome, clients: int, arm: str) -> Row:
    rounds = [m for m in outcome.measurements if (m.arm, m.clients) == (arm, clients)]
    return Row(
        clients=clients,
        arm=arm,
        rate=spread(m.rate for m in rounds),
        p50_ms=spread(m.latency_ms["p50"] for m in rounds),
        p99_ms=spread(m.latency_ms["p99"] for m in rounds),
    )


def _costs(outcome: Outcome) -> list[Cost]:
    return cost_curve(outcome.measurements, outcome.arms, outcome.shape.clients)


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    title = f"The conductor, revision by revision: {shape.pairs} rounds of {shape.measured_s:g} s"
    table = Table(title=title, box=SIMPLE)
    table.add_column("clients", justify="right", no_wrap=True)
    table.add_column("revision", no_wrap=True)
    for heading in ("orders/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summarise(outcome):
        figures = (row.rate.told(0), row.p50_ms.told(), row.p99_ms.told())
        table.add_row(str(row.clients), row.arm, *figures, end_section=row.arm == outcome.arms[-1])
    return table


def _setting(outcome: Outcome) -> Iterator[str]:
    yield "medians [lowest, highest] of the rounds; each revision beside the one before it"
    yield from setting_lines(outcome.setting, outcome.shape.seed)
    yield f"intervals: Student t on paired log-ratios of rounds, {CONFIDENCE:.0%} each"
