"""How the tour's orders look: a table of both styles on a terminal, plain lines for each elsewhere.

It shows what it is told and asks nobody. Text that came from an order is data: no markup of it is obeyed.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab.order_view import headline
from lab.outcome import completion_s
from lab.text import plain


@dataclass(frozen=True)
class Holding:
    """What a service holds of an order: in short for a table, in full for a line, and where to see it."""

    short: str
    full: str = ""
    link: str = ""


@dataclass(frozen=True)
class Part:
    """One order's share of the tour: its representation, its address, the seconds until it was answered."""

    order: Mapping[str, Any]
    ack_s: float
    holdings: Mapping[str, Holding]
    url: str


def show_parts(parts: Sequence[Part]) -> None:
    """Both orders side by side where a person looks; else one below the other, each line whole."""
    if not _is_terminal():
        for part in parts:
            typer.echo(f"\n{headline(part.order).plain}")
            held = [(name, holding.full or holding.short) for name, holding in part.holdings.items()]
            _print_lines([*_facts(part).items(), *held])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", style="bold", no_wrap=True)
    for part in parts:
        table.add_column(Text(part.order["style"]), overflow="fold")
    columns = [
        {**_facts(part), "": "", **{name: holding.short for name, holding in part.holdings.items()}}
        for part in parts
    ]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(Text(name), *(Text(column.get(name, "-")) for column in columns))
    typer.echo("")
    Console().print(table)
    typer.echo("\nThe orders, and what can be seen of them elsewhere:")
    links = (holding.link for part in parts for holding in part.holdings.values() if holding.link)
    for link in (*(part.url for part in parts), *links):
        typer.echo(f"  {link}")


def show_commands(commands: Iterable[tuple[str, str]]) -> None:
    """What to type next and what for, one below the other."""
    typer.echo("\nTry next, in another terminal:")
    _print_lines([(command, f"# {what}") for command, what in commands])
    typer.echo("")


def _facts(part: Part) -> dict[str, str]:
    """What an order tells of itself: its times and its steps."""
    completed_s = completion_s(part.order)
    status = part.order["status"].replace("_", " ")
    facts = {
        "acknowledged": f"{part.ack_s * 1000:.0f} ms after it was sent",
        "completed": status if completed_s is None else f"{completed_s * 1000:.0f} ms after acceptance",
    }
    for name, step in part.order["steps"].items():
        tries = f"{step['attempts']} {'try' if step['attempts'] == 1 else 'tries'}"
        why = step.get("reason") or step.get("last_error")
        facts[name] = plain(f"{step['status']}, {tries}" + (f": {why}" if why else ""))
    return facts


def _print_lines(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, told in rows:
        typer.echo(f"  {name:<{width}}  {told}")


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
