"""`duet timeline`: the same picture of one order for both styles: who did what, when, in how many tries.

It asks checkout, and then every service for its own record. A service that is down is a fact, and is shown as
one. It refuses to show an order that checkout does not know.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from lab.errors import FAILED, LabError
from lab.group import Json
from lab.system import Data, PortBase, System

if TYPE_CHECKING:
    import httpx

    from lab.client import Patience
    from lab.story import Story, Witness

CHECKOUT_PATIENCE_S = 10.0
SERVICE_PATIENCE_S = 3.0  # a service that is down is waited for no longer: it is said to be down
EFFECTS_PATIENCE_S = 30.0  # all pages of it; a try at one page takes no longer than the above
RECORDS = {"email": "/emails/", "warehouse": "/shipments/"}
SHOWN_OF_A_RECORD = ("delivery", "attempts", "reason", "delivered_at", "state", "prepared_at", "changed_at")
NOT_FOUND = 404


def register(app: typer.Typer) -> None:
    """Add `duet timeline`."""
    app.command("timeline")(timeline)


def timeline(
    context: typer.Context,
    order_id: Annotated[str, typer.Argument(help="The order's id.", metavar="ORDER_ID")],
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Show who did what for one order, when, in how many tries, and whom the order waits for.

    Times are in milliseconds from the order's acceptance, each by the clock of who tells it. What checkout
    knows and what a service did are two lines, in both styles: between them lies the way of the news. The
    verdict on each service is the audit's. The exit code is 0 whatever became of the order, 1 if checkout
    knows no such order.
    """
    system = System.locate(port_base, data)
    story = asyncio.run(_run(context, system, order_id))
    if as_json:
        from lab.story import as_document

        typer.echo(json.dumps(as_document(story)))
        return
    _print(story)


async def _run(context: typer.Context, system: System, order_id: str) -> "Story":
    from lab.client import Patience, ensure_running, open_client
    from lab.reading import get_checkout
    from lab.story import tell

    async with open_client(context.obj) as client:
        await ensure_running(client, system)
        order = await get_checkout(client, system, order_id, Patience(CHECKOUT_PATIENCE_S))
        if order is None:
            raise LabError(f"checkout knows no order {order_id}", FAILED)
        witnesses = await ask_services(client, system, order_id)
    return tell(order, witnesses, datetime.now(UTC))


async def ask_services(client: "httpx.AsyncClient", system: System, order_id: str) -> "Mapping[str, Witness]":
    """What every service but checkout says of an order, by its name; one that is down says nothing."""
    from lab.client import Patience
    from lab.reading import effect_services, read_retired
    from lab.synced import read_repaired

    repaired = read_repaired(system)
    retired = await read_retired(client, system, Patience(CHECKOUT_PATIENCE_S))
    names = effect_services(system)
    asked = (
        _ask(client, system, name, order_id, order_id in repaired.get(name, frozenset()), retired.get(name))
        for name in names
    )
    return dict(zip(names, await asyncio.gather(*asked), strict=True))


async def _ask(
    client: "httpx.AsyncClient",
    system: System,
    name: str,
    order_id: str,
    repaired: bool,
    retired_at: datetime | None,
) -> "Witness":
    from lab.client import Patience
    from lab.reading import read_effects
    from lab.story import Witness

    patience = Patience(SERVICE_PATIENCE_S, try_s=SERVICE_PATIENCE_S)
    try:
        async with asyncio.timeout(EFFECTS_PATIENCE_S):
            effects = [
                effect
                for effect in await read_effects(client, system, name, patience)
                if effect.order_id == order_id
            ]
            record = await _record(client, system, name, order_id, patience)
    except LabError as error:
        return Witness(trouble=str(error).splitlines()[0])
    except TimeoutError:
        return Witness(trouble=f"its effects could not be read within {EFFECTS_PATIENCE_S:.0f} s")
    return Witness(effects, record, None, repaired, retired_at)


async def _record(
    client: "httpx.AsyncClient", system: System, name: str, order_id: str, patience: "Patience"
) -> dict[str, Any] | None:
    """What the service keeps by order id, without personal data; None where it keeps nothing."""
    from lab.client import Call, bearer, expect, send

    if name not in RECORDS:
        return None
    url = f"{system.url(name)}{RECORDS[name]}{quote(order_id, safe='')}"
    answer = await send(client, Call("GET", url, bearer(system.tokens().operator)), patience)
    if answer.status == NOT_FOUND:
        return None
    record = expect(answer)
    return {key: record[key] for key in SHOWN_OF_A_RECORD if record.get(key) is not None}


def _print(story: "Story") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lab.order_view import headline

    console = Console(soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ms", justify="right")
    table.add_column("who")
    table.add_column("what")
    table.add_column("tries", justify="right")
    for event in story.events:
        tries = "" if event.tries is None else str(event.tries)
        table.add_row(f"{story.offset_ms(event.at):.1f}", Text(event.who), Text(event.what), tries)
    console.print(headline(story.order))
    console.print(table)
    for name, said in story.witnesses.items():
        verdict = story.verdicts[name]
        state = f"cannot be asked: {said.trouble}" if verdict is None else verdict.value.replace("_", " ")
        console.print(Text(f"{name}: {state}", style="red" if verdict is None else ""))
    console.print(Text(story.line, style="bold"))
