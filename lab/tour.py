"""The first order of a new system, for `duet up --first-order`: placed as any client would, then looked up.

It shows the order's steps, then what each service holds of it. It refuses to wait without end: what has not
come about in time is said to be missing.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from lab.errors import LabError
from lab.system import CONDUCTOR, DEFAULT_PORT_BASE, MAILBOX, Mail, System

if TYPE_CHECKING:
    import httpx

    from lab.client import Patience

STEPS_WITHIN_S = 30.0
MAIL_WITHIN_S = 15.0
MAIL_POLL_S = 0.2
LOOK_S = 10.0

Json = Mapping[str, Any]


async def first_order(system: System, mail: Mail) -> None:
    """Place one sample order, show what came of it and what to try next; raise `LabError` if it fails."""
    import json

    from lab import order_view
    from lab.client import open_client
    from lab.placing import Plan, place_orders
    from lab.samples import sample_order
    from lab.synced import SyncedLines

    body = json.dumps(sample_order(rewards_member=True)).encode()
    plan = Plan(system.url(CONDUCTOR), lambda _: body, follow_s=STEPS_WITHIN_S, detached=True)
    async with open_client() as client, SyncedLines(system.accepted_file) as accepted:
        typer.echo(f"\nA first order: POST {plan.url}/checkouts")
        with order_view.view(1, as_json=False) as shown:
            outcome = await place_orders(client, plan, accepted, shown)
        if not outcome.orders:
            raise LabError(f"the first order was not accepted: {'; '.join(outcome.errors)}")
        (order,) = outcome.orders.values()
        holdings = [
            ("e-mail", await _mail_of(client, system, order, mail)),
            ("shipment", await _shipment_of(client, system, order)),
            ("points", await _points_of(client, system, order)),
        ]
    _show("What the services hold of it:", holdings)
    _show("Try next, in another terminal:", next_commands(system, sys.argv[0]))
    typer.echo("")


def next_commands(system: System, program: str) -> list[tuple[str, str]]:
    """Three commands to go on with, as they are to be typed, and what each is for."""
    called = Path(program)
    duet = program if called.name == "duet" and not called.is_absolute() else "duet"
    where = "" if system.port_base == DEFAULT_PORT_BASE else f" --port-base {system.port_base}"
    return [
        (f"{duet} order --count 100 --rate 10{where}", "load"),
        (f"{duet} kill warehouse{where}", "breakage, meanwhile"),
        (f"{duet} audit --wait 60{where}", "was anything lost or done twice?"),
    ]


async def _mail_of(client: "httpx.AsyncClient", system: System, order: Json, mail: Mail) -> str:
    """The mail in the mailbox, once it is there."""
    from lab.client import Patience

    if mail == "null":
        return "recorded; --mail null sends none"
    patience = Patience(MAIL_WITHIN_S)
    ends = patience.clock() + MAIL_WITHIN_S
    call = f"{system.url(MAILBOX)}/api/messages?order={quote(order['order_id'], safe='')}"
    while patience.clock() < ends:
        found = (await _get(client, system, call, Patience(MAIL_WITHIN_S))).get("messages")
        if found:
            (first, *_) = found
            recipients = ", ".join(first["to"])
            return f"“{first['subject']}” to {recipients}: {system.url(MAILBOX)}/messages/{first['id']}"
        await patience.sleep(MAIL_POLL_S)
    return f"not in the mailbox after {MAIL_WITHIN_S:.0f} s: {system.url(MAILBOX)}/"


async def _shipment_of(client: "httpx.AsyncClient", system: System, order: Json) -> str:
    if order["steps"]["warehouse"]["status"] != "succeeded":
        return _not_yet(order, "warehouse")
    shipment = await _get(client, system, f"{system.url('warehouse')}/shipments/{order['order_id']}")
    units = sum(line["quantity"] for line in shipment["lines"])
    return f"{shipment['state']}, {units} units to {shipment['ship_to']['city']} ({shipment['shipment_id']})"


async def _points_of(client: "httpx.AsyncClient", system: System, order: Json) -> str:
    step = order["steps"]["rewards"]
    if step["status"] != "succeeded":
        return _not_yet(order, "rewards")
    balance = await _get(client, system, f"{system.url('rewards')}/balances/{step['result']['balance_id']}")
    return f"{step['result']['points']} for this order, {balance['points']} in all ({balance['balance_id']})"


async def _get(
    client: "httpx.AsyncClient", system: System, url: str, patience: "Patience | None" = None
) -> dict[str, Any]:
    from lab.client import Call, Patience, bearer, expect, send

    call = Call("GET", url, bearer(system.tokens().operator))
    return expect(await send(client, call, patience or Patience(LOOK_S)))


def _not_yet(order: Json, name: str) -> str:
    step = order["steps"][name]
    return f"none yet: the step is {step['status']} ({step.get('reason') or step.get('last_error') or 'new'})"


def _show(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Two columns: a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        typer.echo(f"\n{title}")
        known = list(rows)
        width = max(len(left) for left, _ in known)
        for left, right in known:
            typer.echo(f"  {left:<{width}}  {right}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for left, right in rows:
        table.add_row(Text(left), Text(right))
    console = Console()
    console.print()
    console.print(table)
