"""How orders look while they are placed: tables on a terminal, lines elsewhere, nothing for programs.

It shows what it is told and asks nobody. Text that came from an order is data: no markup of it is obeyed.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from lab.bench.intervals import percentile
from lab.errors import LabError
from lab.ledger import COMPLETED, IN_PROGRESS, NEEDS_ATTENTION
from lab.outcome import FINAL, Outcome, Tally, holding_up
from lab.placing import Listener
from lab.text import amount, plain

FEW = 10
WORTH_TELLING_S = 0.1
COLOURS = {
    "succeeded": "green",
    "completed": "green",
    "skipped": "dim",
    "pending": "yellow",
    "in_progress": "yellow",
    "failed": "red",
    "needs_attention": "red",
}

Json = Mapping[str, Any]


@contextmanager
def view(count: int, *, as_json: bool) -> Iterator[Listener]:
    """The view that suits the number of orders and whoever reads standard output."""
    if as_json:
        yield Silence()
        return
    if not sys.stdout.isatty():
        yield _Lines(count)
        return
    with Live(console=Console(), refresh_per_second=8) as live:
        yield _LiveOrders(live) if count <= FEW else _LiveProgress(live, count)


def steps_table(order: Json) -> Table:
    """One order, a row for each of its steps."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("step", "status", "tries", "what came of it"):
        table.add_column(heading)
    for name, step in order["steps"].items():
        status = _coloured(step["status"])
        if not step.get("awaited", True):
            status.append(", not awaited", style="dim")
        table.add_row(Text(name), status, str(step.get("attempts", "")), Text(_told(step)))
    return table


def headline(order: Json) -> Text:
    """An order in one line: its id, style, total and status."""
    total = amount(order["total_minor"], order["currency"])
    return Text.assemble(
        f"{order['order_id']}, {order['style']}, {total}: ", _coloured(order["status"]), no_wrap=True
    )


def waiting_for(order: Json) -> str:
    """Whom an order in progress waits for, why and since when, in one line."""
    pending = [
        f"{name} ({_told(step) or 'no trouble known'})"
        for name, step in holding_up(order).items()
        if step["status"] == "pending"
    ]
    return ", ".join(pending) or "somebody to take part: nobody has joined yet"


def orders_table(style: str, orders: Iterable[Json]) -> Table:
    """One row for each order of a style, a column for each step that any of them has."""
    known = list(orders)
    names = list(dict.fromkeys(name for order in known for name in order["steps"]))
    table = Table(box=None, pad_edge=False, header_style="bold", title=style, title_justify="left")
    for heading in ("order", "status", *names):
        table.add_column(Text(heading))
    for order in known:
        steps = [order["steps"].get(name) for name in names]
        cells = [_coloured(step["status"]) if step else Text("-") for step in steps]
        table.add_row(Text(order["order_id"], no_wrap=True), _coloured(order["status"]), *cells)
    return table


def summary_lines(outcome: Outcome, audit_command: str) -> list[str]:
    """The last words: how many were accepted and finished, and what the rest is waiting for."""
    lines = [
        f"accepted {outcome.accepted} of {outcome.requested} in {outcome.seconds:.1f} s: "
        f"{outcome.finished[COMPLETED]} completed, {outcome.finished[NEEDS_ATTENTION]} need attention, "
        f"{len(outcome.unfinished)} in progress"
    ]
    if outcome.retries:
        lines.append(f"{outcome.retries} retries, {outcome.replayed} orders had been accepted before")
    if outcome.worst_lag_s > WORTH_TELLING_S:
        lines.append(f"this command lagged: orders left up to {outcome.worst_lag_s:.1f} s after their time")
    if outcome.refused or outcome.unanswered:
        lines.append(f"not accepted: {outcome.refused} refused, {outcome.unanswered} without an answer")
    if outcome.accepted > 1:
        lines += figures_lines(outcome.styles)
    for order_id in sorted(outcome.unfinished)[:FEW]:
        order = outcome.orders.get(order_id)
        lines.append(f"{order_id} goes on, waiting for {waiting_for(order) if order else 'its steps'}")
    return [*lines, f"check with: {audit_command}"]


def figures_lines(styles: Mapping[str, Tally]) -> list[str]:
    """What became of the orders of each style and how long it took, the styles side by side."""
    shown: dict[str, list[str | int]] = {
        "": list(styles),
        "accepted": [tally.accepted for tally in styles.values()],
        "completed": [tally.finished[COMPLETED] for tally in styles.values()],
        "need attention": [tally.finished[NEEDS_ATTENTION] for tally in styles.values()],
        "in progress": [len(tally.unfinished) for tally in styles.values()],
        "answered, ms (p50 / p99)": [_in_ms(tally.ack_s) for tally in styles.values()],
        "completed, ms (p50 / p99)": [_in_ms(tally.completion_s) for tally in styles.values()],
    }
    width = 2 + max(len(str(cell)) for cells in shown.values() for cell in cells)
    return [f"  {what:<26}" + "".join(f"{cell:>{width}}" for cell in cells) for what, cells in shown.items()]


def as_document(outcome: Outcome) -> dict[str, Any]:
    """The same for programs: what `duet order --json` prints."""
    return {
        "requested": outcome.requested,
        "accepted": outcome.accepted,
        "refused": outcome.refused,
        "unanswered": outcome.unanswered,
        **outcome.finished,
        IN_PROGRESS: len(outcome.unfinished),
        "retries": outcome.retries,
        "replayed": outcome.replayed,
        "seconds": round(outcome.seconds, 3),
        "worst_lag_s": round(outcome.worst_lag_s, 3),
        "styles": {style: _style_document(tally) for style, tally in outcome.styles.items()},
        "errors": outcome.errors,
        "orders": list(outcome.orders.values()),
    }


def _style_document(tally: Tally) -> dict[str, Any]:
    return {
        "accepted": tally.accepted,
        **{status: tally.finished[status] for status in FINAL},
        IN_PROGRESS: len(tally.unfinished),
        "answer_ms": _percentiles_ms(tally.ack_s),
        "completion_ms": _percentiles_ms(tally.completion_s),
    }


def _percentiles_ms(seconds: Iterable[float]) -> dict[str, float]:
    """The median and the 99th percentile in milliseconds; nothing where there is nothing."""
    ordered = sorted(seconds)
    shares = {"p50": 0.5, "p99": 0.99} if ordered else {}
    return {name: round(percentile(ordered, share) * 1000, 1) for name, share in shares.items()}


def _in_ms(seconds: Iterable[float]) -> str:
    found = _percentiles_ms(seconds)
    return f"{found['p50']:.0f} / {found['p99']:.0f}" if found else "-"


class Silence:
    """For programs, which get one document at the end."""

    def accepted(self, order: Json) -> None:
        pass

    def changed(self, order: Json) -> None:
        pass

    def not_accepted(self, error: LabError) -> None:
        pass


class _Lines:
    """For logs: each step of a few orders as it finishes; of many, a line for every tenth."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._accepted = 0
        self._told: dict[str, set[str]] = {}

    def accepted(self, order: Json) -> None:
        self._accepted += 1
        if self._count <= FEW:
            typer.echo(f"accepted {order['order_id']}")
            self.changed(order)
        elif self._accepted * 10 % self._count < 10:
            typer.echo(f"accepted {self._accepted} of {self._count}")

    def changed(self, order: Json) -> None:
        if self._count > FEW:
            return
        order_id = order["order_id"]
        told = self._told.setdefault(order_id, set())
        for name, step in order["steps"].items():
            if step["status"] != "pending" and name not in told:
                told.add(name)
                typer.echo(f"{order_id} {name} {step['status']} {_told(step)}".rstrip())
        if order["status"] != IN_PROGRESS:
            typer.echo(headline(order).plain)

    def not_accepted(self, error: LabError) -> None:
        typer.echo(f"not accepted: {error}", err=True)


class _LiveOrders:
    """For a person and a few orders: their steps."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._orders: dict[str, Json] = {}

    def accepted(self, order: Json) -> None:
        self.changed(order)

    def changed(self, order: Json) -> None:
        self._orders[order["order_id"]] = order
        if len(self._orders) == 1:
            self._live.update(Group(headline(order), steps_table(order)))
            return
        styles: dict[str, list[Json]] = {}
        for known in self._orders.values():
            styles.setdefault(known["style"], []).append(known)
        self._live.update(Group(*(orders_table(style, known) for style, known in styles.items())))

    def not_accepted(self, error: LabError) -> None:
        self._live.console.print(Text(str(error), style="red"))


class _LiveProgress:
    """For a person and many orders: how far they are."""

    def __init__(self, live: Live, count: int) -> None:
        self._live = live
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns)
        self._placed = self._progress.add_task("accepted", total=count)
        self._finished = self._progress.add_task("finished", total=count)
        live.update(Group(self._progress))

    def accepted(self, order: Json) -> None:
        self._progress.advance(self._placed)
        self.changed(order)

    def changed(self, order: Json) -> None:
        if order["status"] != IN_PROGRESS:
            self._progress.advance(self._finished)

    def not_accepted(self, error: LabError) -> None:
        self._live.console.print(Text(str(error), style="red"))


def _coloured(status: str) -> Text:
    return Text(status.replace("_", " "), style=COLOURS.get(status, ""))


def _told(step: Json) -> str:
    """What a step says of itself: its result, its reason, or its last trouble."""
    if step.get("result"):
        return " ".join(f"{key}={plain(value)}" for key, value in step["result"].items())
    if step.get("reason"):
        return plain(step["reason"])
    if step.get("last_error"):
        return f"{plain(step['last_error'])} since {plain(step.get('since'))}"
    return ""
