"""What a run found, for people as tables and verdict lines, for programs as one JSON document."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lab.bench.arms import ARMS
from lab.bench.comparison import LEAST_HEADROOM, QUIET_CPU_SHARE, Figure, Headroom, Outcome
from lab.bench.cost import Cost, cost_curve, cost_table, cpu_ms
from lab.bench.generator import Measurement
from lab.bench.intervals import Verdict
from lab.bench.ledger import Ledger
from lab.bench.setting import Setting
from lab.bench.stub import SERVICES


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The whole outcome as plain JSON values; durations as their names say, `cpu_s` in seconds."""
    return {
        "bench": "conductor",
        "passed": outcome.passed,
        "goals_reached": outcome.reached,
        "setting": asdict(outcome.setting),
        "shape": asdict(outcome.shape),
        "medians": [asdict(row) for row in summarise(outcome)],
        "cost_curve": [asdict(cost) for cost in _costs(outcome)],
        "figures": [{**asdict(figure), "line": sentence(figure)} for figure in outcome.figures],
        "generator": [{**asdict(each), "enough": each.enough} for each in outcome.headrooms],
        "others_cpu_share": outcome.others_cpu_share,
        "ledger": outcome.ledger.as_json(),
        "measurements": [asdict(measurement) for measurement in outcome.measurements],
    }


def show(outcome: Outcome, console: Console) -> None:
    """Prints the table, the cost curve, the ratios with their verdicts, the generator's proof, the ledger and
    the setting.
    """
    console.print(_table(outcome))
    console.print(cost_table(_costs(outcome)))
    for figure in outcome.figures:
        say(console, sentence(figure), colour(figure.verdict))
    for each in outcome.headrooms:
        say(console, proof(each), None if each.enough else "bold yellow")
    say_quiet(console, outcome.others_cpu_share)
    say_ledger(console, outcome.ledger)
    for line in _setting(outcome):
        say(console, line, "dim")


def sentence(figure: Figure) -> str:
    """One ratio in words: `p50 vs naive-aiohttp at 1 client: 1.43 [1.39, 1.47] goal <= 1.5 reached`."""
    ratio = figure.ratio
    interval = f"{ratio.point:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
    against = figure.against
    if figure.against_clients is not None:
        against = f"{against} at {_clients(figure.against_clients)},"
    line = f"{figure.metric} vs {against} at {_clients(figure.clients)}: {interval}"
    if figure.goal is None:
        return f"{line} (reported, no goal)"
    sign = ">=" if figure.goal.kind == "at_least" else "<="
    return f"{line} goal {sign} {figure.goal.bound} {figure.verdict}"


def proof(each: Headroom) -> str:
    """What shows that the generator was not the bottleneck, or that it may have been."""
    line = (
        f"generator at {_clients(each.clients)}: its ceiling {each.ceiling_rate:,.0f}/s "
        f"(p50 {each.ceiling_p50_ms:.2f} ms) is {each.ratio:.1f} times the fastest arm's "
        f"{each.fastest_rate:,.0f}/s; "
        f"it used at most {each.generator_cpu_share:.0%} of a core, the stubs {each.stubs_cpu_share:.0%}"
    )
    return (
        line if each.enough else f"{line}: UNDER {LEAST_HEADROOM:.0f} TIMES, it may have been the bottleneck"
    )


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


@dataclass(frozen=True, slots=True)
class Row:
    """One arm at one number of clients: medians over the rounds. CPU shares are of one core."""

    clients: int
    arm: str
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms_per_order: float
    conductor_cpu_share: float
    generator_cpu_share: float
    stubs_cpu_share: float


def summarise(outcome: Outcome) -> list[Row]:
    """The rows of the table, by number of clients and arm."""
    return [_row(outcome.measurements, clients, arm) for clients in outcome.shape.clients for arm in ARMS]


def _row(measurements: list[Measurement], clients: int, arm: str) -> Row:
    rounds = [m for m in measurements if m.arm == arm and m.clients == clients]
    return Row(
        clients=clients,
        arm=arm,
        rate=median(m.rate for m in rounds),
        p50_ms=median(m.latency_ms["p50"] for m in rounds),
        p99_ms=median(m.latency_ms["p99"] for m in rounds),
        cpu_ms_per_order=median(map(cpu_ms, rounds)),
        conductor_cpu_share=median(m.cpu_s["conductor"] / m.measured_s for m in rounds),
        generator_cpu_share=median(m.cpu_s["generator"] / m.measured_s for m in rounds),
        stubs_cpu_share=median(m.cpu_s["stubs"] / m.measured_s for m in rounds),
    )


def _costs(outcome: Outcome) -> list[Cost]:
    return cost_curve(outcome.measurements, ARMS, outcome.shape.clients)


def _table(outcome: Outcome) -> Table:
    shape = outcome.shape
    title = f"Durable conductor and baselines: medians over {shape.pairs} rounds of {shape.measured_s:g} s"
    table = Table(title=title, box=SIMPLE)
    table.add_column("clients", justify="right", no_wrap=True)
    table.add_column("conductor", no_wrap=True)
    for heading in ("orders/s", "p50 ms", "p99 ms", "CPU ms/order", "CPU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in summarise(outcome):
        table.add_row(
            str(row.clients),
            row.arm,
            f"{row.rate:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.cpu_ms_per_order:.2f}",
            f"{row.conductor_cpu_share:.0%}",
            end_section=row.arm == ARMS[-1],
        )
    return table


def say_quiet(console: Console, others_cpu_share: float) -> None:
    """Says so where other processes used much of a core."""
    if others_cpu_share > QUIET_CPU_SHARE:
        used = f"other processes used {others_cpu_share:.0%} of a core"
        say(console, f"the machine was not quiet: {used}", "bold yellow")


def say(console: Console, line: str, style: str | None = None) -> None:
    """Prints one line as it is, however long."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def colour(verdict: Verdict | None) -> str | None:
    """The style in which a line with that verdict is printed."""
    return {"reached": "green", "missed": "bold red", "undecided": "bold yellow", None: None}[verdict]


def say_ledger(console: Console, ledger: Ledger) -> None:
    """Says what the ledger holds, in red if it does not balance."""
    for line in ledger_lines(ledger):
        say(console, line, None if ledger.balances else "bold red")


def ledger_lines(ledger: Ledger) -> Iterator[str]:
    """What clients were told, what the stubs were asked, what is stored, and whether it adds up."""
    for arm, account in ledger.accounts.items():
        calls = ", ".join(f"{name} {account.calls[name]}" for name in SERVICES)
        yield f"ledger of {arm}: {account.orders} completed ({account.members} of members); calls: {calls}"
    for arm, counts in ledger.stored.items():
        yield f"stored by {arm}: {dict(counts)}"
    yield "the ledger balances" if ledger.balances else "THE LEDGER DOES NOT BALANCE"
    yield from ledger.problems


def _setting(outcome: Outcome) -> Iterator[str]:
    yield from setting_lines(outcome.setting, outcome.shape.seed)
    confidence = outcome.figures[0].ratio.confidence if outcome.figures else 0.95
    yield f"intervals: Student t on paired log-ratios of rounds, {confidence:.1%} each (95% for all goals)"


def setting_lines(setting: Setting, seed: int) -> Iterator[str]:
    """Machine, disk, versions and commit, a line each."""
    machine = f"{setting.cores} cores ({setting.processor}), {setting.platform}"
    yield f"{machine}, load {setting.load_1m:.1f} at the start"
    disk = setting.fsync_ms
    yield f"fsync on {setting.filesystem}: p50 {disk['p50']:.2f} ms, p99 {disk['p99']:.2f} ms"
    versions = ", ".join(f"{name} {version}" for name, version in setting.versions.items())
    yield f"Python {setting.python}, SQLite {setting.sqlite}, {versions}"
    changed = " with uncommitted changes" if setting.uncommitted_changes else ""
    yield f"commit {setting.commit or 'unknown'}{changed}; seed {seed}"
