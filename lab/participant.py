"""`duet participant`: who takes part in the choreography, and how somebody leaves it.

Joining needs no command: a service joins by its own durable at the broker. It refuses to retire anybody by
accident, since orders stop waiting for whoever is retired.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from lab.errors import FAILED, LabError
from lab.group import Json, add_group, confirm
from lab.system import CONDUCTOR, Data, PortBase, System

PATIENCE_S = 20.0

Name = Annotated[str, typer.Argument(help="The participant, as `duet participant list` names it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before.")]


def register(app: typer.Typer) -> None:
    """Add `duet participant`."""
    add_group(
        app,
        "participant",
        "Who takes part in choreographed orders: see, retire.",
        {"list": list_participants, "retire": retire},
    )


def list_participants(
    context: typer.Context, as_json: Json = False, port_base: PortBase = None, data: Data = None
) -> None:
    """List everybody who has ever joined, since when, and until when if retired."""
    told = _ask(context, System.locate(port_base, data), "GET", "")
    if as_json:
        typer.echo(json.dumps(told))
        return
    known = told["participants"]
    if not known:
        typer.echo("Nobody has joined yet.")
    for participant in known:
        typer.echo(_line(participant))


def retire(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Wait for a participant no more: not in new orders, and its pending steps become skipped.

    Whoever runs it sees to it that it does nothing more. It joins again only by a durable that is made later.
    """
    system = System.locate(port_base, data)
    confirm(f"Retire {name}, so that no order waits for it any more?", yes=yes)
    try:
        told = _ask(context, system, "POST", f"/{quote(name, safe='')}/retire")
    except LabError as error:
        raise _in_our_words(error, name) from error
    typer.echo(json.dumps(told) if as_json else _line(told))


def _line(participant: Mapping[str, Any]) -> str:
    retired_at = participant.get("retired_at")
    until = f", retired {retired_at}" if retired_at else ""
    return f"{participant['name']}: joined {participant['joined_at']}{until}"


def _in_our_words(error: LabError, name: str) -> LabError:
    from lab.client import RefusedError

    if isinstance(error, RefusedError) and error.answer.status == 404:
        return LabError(f"nobody called {name} has ever joined: see `duet participant list`", FAILED)
    return error


def _ask(context: typer.Context, system: System, method: str, path: str) -> dict[str, Any]:
    """What checkout tells the operator; raise `LabError` with its refusal."""
    from lab.client import Call, Patience, bearer, ensure_running, expect, open_client, send

    async def run() -> dict[str, Any]:
        url, headers = f"{system.url(CONDUCTOR)}/participants{path}", bearer(system.tokens().operator)
        async with open_client(context.obj) as client:
            await ensure_running(client, system)
            return expect(await send(client, Call(method, url, headers), Patience(PATIENCE_S)))

    return asyncio.run(run())
