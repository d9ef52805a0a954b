"""`duet listen`: prints each OrderCreated as one more subscriber, of whom checkout knows nothing.

It hears as audience: nobody waits for it, and no order's status depends on it. Names, e-mail addresses and
streets are not shown unless the whole event is asked for.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import FAILED
from lab.group import Json
from lab.system import Data, PortBase, System

if TYPE_CHECKING:
    from lab.audience import Heard

STREAM = "ORDERS"
SUBJECT = "orders.created"
SHOWN_LINES = 5


def register(app: typer.Typer) -> None:
    """Add `duet listen`."""
    app.command("listen")(listen)


def listen(
    count: Annotated[int | None, typer.Option("--count", min=1, help="End after so many events.")] = None,
    for_s: Annotated[
        float | None, typer.Option("--for", min=0.1, max=86_400, help="End after so many seconds.")
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest event that the broker keeps (7 days).")
    ] = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Print each OrderCreated as it comes, until Ctrl-C, a count or a time.

    Shown are order id, total, lines, city and country; --json prints each event whole, one a line, with the
    customer's name, e-mail address and street. The exit code is 1 if the time was over before the count.
    """
    system = System.locate(port_base, data)
    printer = _Printer(as_json=as_json)
    in_time = True
    with suppress(KeyboardInterrupt):
        in_time = asyncio.run(_listen(system, printer, count, for_s, from_start=from_start))
    typer.echo(f"heard {printer.number} {'event' if printer.number == 1 else 'events'}", err=True)
    if not in_time:
        raise typer.Exit(FAILED)


async def _listen(
    system: System, printer: "_Printer", count: int | None, for_s: float | None, *, from_start: bool
) -> bool:
    """Print until the count or the time is reached; whether the count, if there is one, was."""
    from lab.audience import hear
    from lab.broker import connect

    async with connect(system) as jetstream:
        events = hear(jetstream, STREAM, SUBJECT, from_start=from_start, notice=_notice)
        with suppress(TimeoutError):
            async with asyncio.timeout(for_s), aclosing(events):
                async for heard in events:
                    printer.show(heard)
                    if printer.number == count:
                        return True
    return count is None


class _Printer:
    """Prints what is heard, and counts it."""

    def __init__(self, *, as_json: bool) -> None:
        self.number = 0
        self._as_json = as_json

    def show(self, heard: "Heard") -> None:
        """Print one event."""
        self.number += 1
        event = _event(heard.data)
        if self._as_json:
            typer.echo(json.dumps(event or {"unreadable": heard.data.decode(errors="replace")}))
            return
        try:
            lines = _lines(heard, event)
        except (KeyError, TypeError, ValueError, AttributeError):
            lines = [f"#{heard.sequence}  cannot be read as an OrderCreated ({len(heard.data)} bytes)"]
        for line in lines:
            typer.echo(line)


def _lines(heard: "Heard", event: Mapping[str, Any]) -> list[str]:
    """Two lines without personal data; raise what a part that is missing or of another kind leads to."""
    from lab.text import amount, plain

    order = event["data"]
    lines = [f"{line['quantity']} x {line['sku']}" for line in order["lines"]]
    more = [f"and {len(lines) - SHOWN_LINES} more"] if len(lines) > SHOWN_LINES else []
    where = f"{order['ship_to']['city']}, {order['ship_to']['country']}"
    after_ms = (heard.at - datetime.fromisoformat(order["accepted_at"])).total_seconds() * 1000
    retry = f", retry {event['retry']}" if event.get("retry") else ""
    total = amount(order["total_minor"], order["currency"])
    return [
        plain(f"#{heard.sequence}  {order['order_id']}  {total}  to {where}"),
        plain(f"    {', '.join([*lines[:SHOWN_LINES], *more])}; {after_ms:.0f} ms after acceptance{retry}"),
    ]


def _event(data: bytes) -> dict[str, Any]:
    """The event; empty where it is no JSON object."""
    try:
        parsed = json.loads(data)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _notice(line: str) -> None:
    typer.echo(f"duet: {line}", err=True)
