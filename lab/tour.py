"""The first orders of a new system, for `duet up --first-order`: one in each style, placed as a client does.

It shows their steps and times side by side, then what each service holds of them. It refuses to wait without
end: what has not come about in time is said to be missing.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import typer

from lab.client import Call, Patience, bearer, expect, open_client, send
from lab.errors import LabError
from lab.order import STYLES
from lab.order_view import Silence
from lab.placing import Plan, place_orders
from lab.samples import sample_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, DEFAULT_PORT_BASE, MAILBOX, Mail, System
from lab.tour_view import Holding, Part, show_commands, show_parts

STEPS_WITHIN_S = 30.0
MAIL_WITHIN_S = 15.0
MAIL_POLL_S = 0.2
LOOK_S = 10.0

Json = Mapping[str, Any]


async def first_order(system: System, mail: Mail, transport: httpx.AsyncBaseTransport | None = None) -> None:
    """Place a sample order in each style, show what came of both, side by side, and what to try next.

    Raises `LabError` where one is not accepted. Tests give a transport of their own.
    """
    typer.echo(f"\nA first checkout in each style: POST {system.url(CONDUCTOR)}/checkouts?style=...")
    parts = []
    async with open_client(transport) as client, SyncedLines(system.accepted_file) as accepted:
        for style in STYLES:  # one after the other, so that neither delays the other
            order, ack_s = await _place(client, system, style, accepted)
            holdings = {
                "e-mail": await _mail_of(client, system, order, mail),
                "shipment": await _shipment_of(client, system, order),
                "points": await _points_of(client, system, order),
            }
            url = f"{system.url(CONDUCTOR)}/checkouts/{order['order_id']}"
            parts.append(Part(order, ack_s, holdings, url))
    show_parts(parts)
    typer.echo("\nSingle orders on a system that has just started: duet bench styles compares.")
    show_commands(next_commands(system, sys.argv[0]))


def next_commands(system: System, program: str) -> list[tuple[str, str]]:
    """Three commands to go on with, as they are to be typed, and what each is for."""
    called = Path(program)
    duet = program if called.name == "duet" and not called.is_absolute() else "duet"
    where = "" if system.port_base == DEFAULT_PORT_BASE else f" --port-base {system.port_base}"
    return [
        (f"{duet} order --style both --count 100 --rate 10{where}", "load it"),
        (f"{duet} kill warehouse{where}", "break it meanwhile"),
        (f"{duet} audit --wait 60{where}", "audit it"),
    ]


async def _place(
    client: httpx.AsyncClient, system: System, style: str, accepted: SyncedLines
) -> tuple[dict[str, Any], float]:
    """An order of this style, once its steps are final or the wait is over; seconds until it was answered."""
    body = json.dumps(sample_order(rewards_member=True)).encode()
    url = system.url(CONDUCTOR)
    plan = Plan(url, lambda _: body, styles=(style,), follow_s=STEPS_WITHIN_S, detached=True)
    outcome = await place_orders(client, plan, accepted, Silence())
    if not outcome.orders:
        raise LabError(f"the first order by {style} was not accepted: {'; '.join(outcome.errors)}")
    (order,) = outcome.orders.values()
    return order, outcome.styles[order["style"]].ack_s[0]


async def _mail_of(client: httpx.AsyncClient, system: System, order: Json, mail: Mail) -> Holding:
    """The mail in the mailbox, once it is there."""
    if mail == "null":
        return Holding("recorded; --mail null sends none")
    patience = Patience(MAIL_WITHIN_S)
    ends = patience.clock() + MAIL_WITHIN_S
    call = f"{system.url(MAILBOX)}/api/messages?order={quote(order['order_id'], safe='')}"
    while patience.clock() < ends:
        found = (await _get(client, system, call, Patience(MAIL_WITHIN_S))).get("messages")
        if found:
            (first, *_) = found
            recipients = ", ".join(first["to"])
            link = f"{system.url(MAILBOX)}/messages/{first['id']}"
            return Holding(f"sent to {recipients}", f"“{first['subject']}” to {recipients}: {link}", link)
        await patience.sleep(MAIL_POLL_S)
    return Holding(f"not in the mailbox after {MAIL_WITHIN_S:.0f} s: {system.url(MAILBOX)}/")


async def _shipment_of(client: httpx.AsyncClient, system: System, order: Json) -> Holding:
    if not _has_succeeded(order, "warehouse"):
        return _not_yet(order, "warehouse")
    shipment = await _get(client, system, f"{system.url('warehouse')}/shipments/{order['order_id']}")
    units = sum(line["quantity"] for line in shipment["lines"])
    told = f"{shipment['state']}, {units} units to {shipment['ship_to']['city']}"
    return Holding(told, f"{told} ({shipment['shipment_id']})")


async def _points_of(client: httpx.AsyncClient, system: System, order: Json) -> Holding:
    if not _has_succeeded(order, "rewards"):
        return _not_yet(order, "rewards")
    result = order["steps"]["rewards"]["result"]
    balance = await _get(client, system, f"{system.url('rewards')}/balances/{result['balance_id']}")
    told = f"{result['points']} for this order, {balance['points']} in all"
    return Holding(told, f"{told} ({balance['balance_id']})")


async def _get(
    client: httpx.AsyncClient, system: System, url: str, patience: Patience | None = None
) -> dict[str, Any]:
    call = Call("GET", url, bearer(system.tokens().operator))
    return expect(await send(client, call, patience or Patience(LOOK_S)))


def _has_succeeded(order: Json, name: str) -> bool:
    return bool(order["steps"].get(name, {}).get("status") == "succeeded")


def _not_yet(order: Json, name: str) -> Holding:
    step = order["steps"].get(name)
    if step is None:
        return Holding("none yet: nobody is known to do it")
    why = step.get("reason") or step.get("last_error") or "new"
    return Holding(f"none yet: the step is {step['status']} ({why})")
