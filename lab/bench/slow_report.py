"""What the slow bench found, for people as a table and verdict lines, for programs as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.batching_arms import BATCHING
from lab.bench.report import say, setting_lines
from lab.bench.slow import WAIT_S, Figure, Outcome
from lab.bench.stub import SERVICES

STYLES = {"reached": "green", "missed": "bold red", "undecided": "bold yellow", None: None}


@dataclass(frozen=True, slots=True)
class Row:
    """One conductor in one scenario: medians over the rounds."""

    scenario: str
    batching: str
    p50_ms: float
    p99_ms: float
    conductor_cpu_ms: float
    generator_lag_p99_ms: float


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say."""
    return {
        "bench": "slow",
        "passed": outcome.passed,
        "judged": outcome.shape.judged,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "medians": [asdict(row) for row in summarise(outcome)],
        "figures": [{**asdict(figure), "line": sentence(figure)} for figure in outcome.figures],
        "ledger": outcome.ledger.as_json(),
        "stretches": [asdict(each) for each in outcome.stretches],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the table, the ratios with their verdicts, the ledger and the setting."""
    console.print(_table(outcome))
    for figure in outcome.figures:
        say(console, sentence(figure), STYLES[figure.verdict])
    for line in _ledger(outcome):
        say(console, line, None if outcome.balances else "bold red")
    if not outcome.shape.judged:
        say(console, "a quick look: no goal was judged")
    rate = outcome.shape.rate
    say(console, f"completion: from the intended time to the 201 (Prefer: wait={WAIT_S}), {rate:g}/s", "dim")
    confidence = outcome.figures[0].ratio.confidence
    say(console, f"intervals: Student t on paired log-ratios of rounds, {confidence:.1%} each", "dim")
    for line in setting_lines(outcome.setting, outcome.shape.seed):
        say(console, line, "dim")


def sentence(figure: Figure) -> str:
    """One ratio in words: `p99, 10 ms, batching on over off: 1.01 [0.98, 1.04] goal <= 1.05 reached`."""
    ratio = figure.ratio
    interval = f"{ratio.point:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    line = f"{figure.metric}, {figure.scenario}, batching on over off: {interval}"
    return f"{line} goal <= {figure.goal.bound:g} {figure.verdict or '(not judged)'}"


def summarise(outcome: Outcome) -> list[Row]:
    """The rows of the table, by scenario and conductor."""
    return [
        _row(outcome, scenario.name, batching)
        for scenario in outcome.shape.scenarios
        for batching in BATCHING
    ]


def _row(outcome: Outcome, scenario: str, batching: str) -> Row:
    rounds = [each for each in outcome.stretches if (each.scenario, each.batching) == (scenario, batching)]
    return Row(
        scenario=scenario,
        batching=batching,
        p50_ms=median(each.completion_ms["p50"] for each in rounds),
        p99_ms=median(each.completion_ms["p99"] for each in rounds),
        conductor_cpu_ms=median(each.conductor_cpu_ms for each in rounds),
        generator_lag_p99_ms=max(each.generator_lag_ms["p99"] for each in rounds),
    )


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    title = (
        f"Slow services, {shape.rate:g} orders/s: medians over {shape.pairs} rounds of {shape.measured_s:g} s"
    )
    table = Table(title=title, box=SIMPLE)
    for heading in ("services take", "batching"):
        table.add_column(heading, no_wrap=True)
    for heading in ("completion p50", "p99 ms", "CPU ms/order", "lag p99 ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summarise(outcome):
        table.add_row(
            row.scenario,
            row.batching,
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.conductor_cpu_ms:.2f}",
            f"{row.generator_lag_p99_ms:.1f}",
            end_section=row.batching == BATCHING[-1],
        )
    return table


def _ledger(outcome: Outcome) -> Iterator[str]:
    ledger = outcome.ledger
    for name, account in ledger.accounts.items():
        calls = ", ".join(f"{service} {account.calls[service]}" for service in SERVICES)
        stored = dict(ledger.stored[name])
        yield f"batching {name}: {account.orders} accepted, stored {stored}; calls: {calls}"
    yield from (f"batching {problem}" for problem in ledger.problems)
    yield "the ledger balances" if outcome.balances else "THE LEDGER DOES NOT BALANCE"
