"""`duet audit`: holds the system to its promise, order by order and service by service.

Whatever was accepted, by the file of ids or by checkout's own books, is reconciled with what every service
says that it did; the ledger judges. It refuses to judge while orders keep coming in.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import FAILED, LabError
from lab.ledger import TROUBLES, Report, Verdict, reconcile
from lab.order import AcceptedFile
from lab.synced import read_lines, read_repaired
from lab.system import Data, PortBase, System

if TYPE_CHECKING:
    from rich.table import Table

PATIENCE_S = 20.0  # for a service that is just being started anew
WAITING_TRY_S = 5.0
SHOWN_IDS = 20


def register(app: typer.Typer) -> None:
    """Add `duet audit`."""
    app.command("audit")(audit)


def audit(
    context: typer.Context,
    accepted: AcceptedFile = None,
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, max=3600, help="Seconds to wait until no order is in progress."),
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Reconcile every accepted order with every service's effects.

    Accepted are the ids in the file and all orders that checkout knows. The exit code is 0 if the ledger
    balances: none lost, missing, duplicate, unexpected, late or unfinished. An order owes no effect of the
    steps that it says failed or an operator gave up (they count as refused), nor of a participant who joined
    later than it was accepted, or had retired before. Stop the load first.
    """
    system = System.locate(port_base, data)
    ids = _read_accepted(accepted, system)
    report = asyncio.run(_run(context, system, ids, wait_s))
    if as_json:
        typer.echo(json.dumps(as_document(report)))
    else:
        _print(report)
    if not report.balances:
        raise typer.Exit(FAILED)


async def _run(context: typer.Context, system: System, accepted: Iterable[str], wait_s: float) -> Report:
    from lab.client import Patience, ensure_running, open_client
    from lab.reading import read_books, read_retired, wait_until_quiet

    async with open_client(context.obj) as client:
        if wait_s:
            await wait_until_quiet(client, system, Patience(wait_s, try_s=WAITING_TRY_S))
        await ensure_running(client, system)
        promised = set(accepted)
        orders, effects = await read_books(client, system, promised, Patience(PATIENCE_S))
        retired = await read_retired(client, system, Patience(PATIENCE_S))
    return reconcile(promised, orders.values(), effects, read_repaired(system), retired)


def as_document(report: Report) -> dict[str, Any]:
    """The report as `duet audit --json` prints it: counts in full, of ids the first twenty of each kind."""
    return {
        "balances": report.balances,
        "accepted": report.accepted,
        "orders": dict(report.orders),
        "styles": {style: dict(statuses) for style, statuses in report.styles.items()},
        "lost": len(report.lost),
        **{verdict.value: report.total(verdict) for verdict in Verdict},
        "services": {name: dict(counts) for name, counts in report.counts.items()},
        "ids": {
            "lost": list(report.lost[:SHOWN_IDS]),
            "unfinished": list(report.unfinished[:SHOWN_IDS]),
            **{
                name: {verdict.value: list(ids[:SHOWN_IDS]) for verdict, ids in troubles.items()}
                for name, troubles in report.troubles.items()
            },
        },
    }


def _read_accepted(chosen: Path | None, system: System) -> list[str]:
    if chosen is None and not system.accepted_file.exists():
        return []  # orders may have been placed by other clients only
    file = chosen or system.accepted_file
    try:
        return list(read_lines(file))
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read {file}: {error}") from error


def _print(report: Report) -> None:
    from rich.console import Console

    console = Console()
    typer.echo(f"{report.accepted} accepted ids in the file; checkout knows {_statuses(report.orders)}")
    for style, statuses in report.styles.items():
        typer.echo(f"  by {style}: {_statuses(statuses)}")
    console.print(_table(report))
    if report.balances:
        console.print("The ledger balances.", style="bold green")
        return
    console.print("The ledger does not balance.", style="bold red")
    _print_ids("lost: accepted, but checkout does not know them", report.lost)
    _print_ids("unfinished: still in progress", report.unfinished)
    for service, troubles in report.troubles.items():
        for verdict, ids in troubles.items():
            if verdict is not Verdict.UNFINISHED:
                _print_ids(f"{service}, {verdict.value}", ids)
        if Verdict.MISSING in troubles:
            typer.echo(f"if {service} was restored from a backup: duet repair {service}")


def _statuses(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {status.replace('_', ' ')}" for status, number in numbers.items())


def _table(report: Report) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("orders")
    for name in (*report.counts, "all"):
        table.add_column(name, justify="right")
    for verdict in Verdict:
        numbers = [*(counts[verdict] for counts in report.counts.values()), report.total(verdict)]
        wrong = "red" if verdict in TROUBLES else ""
        cells = [Text(str(number), style=wrong if number else "") for number in numbers]
        table.add_row(verdict.value.replace("_", " "), *cells)
    return table


def _print_ids(what: str, ids: Iterable[str]) -> None:
    known = list(ids)
    if known:
        typer.echo(f"{what} ({len(known)}):")
        for order_id in known[:SHOWN_IDS]:
            typer.echo(f"  {order_id}")
        if len(known) > SHOWN_IDS:
            typer.echo(f"  and {len(known) - SHOWN_IDS} more")
