"""`duet repair`: sends again what a service lost, say because it was restored from a backup.

Lost is what checkout holds for `succeeded` and the service's effects do not show, whichever style the order
came about in: it is sent as the conductor's command, which has the same effect as the event, by the same
function. The order's step stays as it is. It refuses to touch anything else: what is pending is checkout's
own to finish.
"""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands import SERVICES, command_for
from lab.errors import FAILED, LabError
from lab.synced import SyncedLines, repaired_file
from lab.system import Data, PortBase, System

if TYPE_CHECKING:
    import httpx

    from lab.client import Patience

PATIENCE_S = 30.0
AT_ONCE = 8
SHOWN_IDS = 20


@dataclass
class Repair:
    """What was found and done: order ids, and why a command could not be sent again."""

    service: str
    succeeded: int
    found: int
    missing: Sequence[str]
    resent: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def register(app: typer.Typer) -> None:
    """Add `duet repair`."""
    app.command("repair")(repair)


def repair(
    context: typer.Context,
    service: Annotated[str, typer.Argument(help="email, warehouse or rewards.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Send a service again what it has lost: orders whose step succeeded, but of which it shows no effect.

    Orders of both styles are sent over REST, with the conductor's token. A repeated command does nothing
    twice, but a confirmation may be mailed again, under the same Message-ID. The exit code is 1 if something
    could not be sent again.
    """
    system = System.locate(port_base, data)
    if service not in SERVICES:
        raise LabError(f"{service} takes no commands that could be sent again: {', '.join(SERVICES)} do")
    done = asyncio.run(_run(context, system, service, dry_run=dry_run))
    if as_json:
        typer.echo(json.dumps(as_document(done)))
    else:
        _print(done, dry_run=dry_run)
    if done.failed:
        raise typer.Exit(FAILED)


async def _run(context: typer.Context, system: System, service: str, *, dry_run: bool) -> Repair:
    from lab.client import Patience, ensure_running, open_client

    patience = Patience(PATIENCE_S)
    async with open_client(context.obj) as client:
        await ensure_running(client, system)
        done = await find_missing(client, system, service, patience)
        if done.missing and not dry_run:
            async with SyncedLines(repaired_file(system)) as notes:
                await resend(client, system, done, notes, patience)
    return done


async def find_missing(
    client: "httpx.AsyncClient", system: System, service: str, patience: "Patience"
) -> Repair:
    """Compare the orders whose step succeeded with the service's effects.

    Orders are read first: an effect is there before checkout holds it for succeeded, so none looks missing
    only because it came while the pages were read.
    """
    from lab.reading import read_effects, read_orders

    orders = await read_orders(client, system, patience)
    effects = {effect.order_id for effect in await read_effects(client, system, service, patience)}
    succeeded = {
        order.order_id
        for order in orders.values()
        if (step := order.steps.get(service)) is not None and step.status == "succeeded"
    }
    return Repair(service, len(succeeded), len(succeeded & effects), sorted(succeeded - effects))


async def resend(
    client: "httpx.AsyncClient", system: System, done: Repair, notes: SyncedLines, patience: "Patience"
) -> None:
    """Send the missing commands again, and say in `done` what came of each.

    Each is noted first, so that the audit knows why the effect is later than its order.
    """
    from lab.client import Call, bearer, each, expect, send
    from lab.reading import get_checkout

    headers = bearer(system.tokens().conductor(done.service))

    async def send_again(order_id: str) -> None:
        try:
            order = await get_checkout(client, system, order_id, patience)
            if order is None:
                raise LabError("checkout knows it no more", FAILED)
            command = command_for(done.service, order)
            await notes.add(f"{done.service} {order_id}")
            url = f"{system.url(done.service)}{command.path}"
            content = json.dumps(command.body).encode()
            reply = expect(await send(client, Call("POST", url, headers, content=content), patience))
            if reply.get("order_id") != order_id:
                raise LabError(f"{done.service} answered for another order", FAILED)
        except LabError as error:
            done.failed[order_id] = str(error)
        else:
            done.resent.append(order_id)

    await each(done.missing, send_again, AT_ONCE)


def as_document(done: Repair) -> dict[str, Any]:
    """What `duet repair --json` prints."""
    return {
        "service": done.service,
        "succeeded": done.succeeded,
        "found": done.found,
        "missing": list(done.missing),
        "resent": sorted(done.resent),
        "failed": done.failed,
    }


def _print(done: Repair, *, dry_run: bool) -> None:
    typer.echo(
        f"{done.service}: checkout holds {done.succeeded} orders for done; {done.found} are there, "
        f"{len(done.missing)} are missing"
    )
    if dry_run:
        _print_ids(done.missing)
        return
    if done.missing:
        typer.echo(f"sent again: {len(done.resent)}; failed: {len(done.failed)}")
    _print_ids(f"{order_id}: {why}" for order_id, why in sorted(done.failed.items()))


def _print_ids(lines: Iterable[str]) -> None:
    known = list(lines)
    for line in known[:SHOWN_IDS]:
        typer.echo(f"  {line}")
    if len(known) > SHOWN_IDS:
        typer.echo(f"  and {len(known) - SHOWN_IDS} more (--json lists all)")
