"""`duet dlq`: events that a participant gave up after its permanent errors: see, show, replay, drop.

A replay is a retry of that order at checkout, which emits its event again; only then is the entry cleared.
Checkout knows which dead letters are open: those of orders that were mended otherwise are not listed. It
refuses to clear by itself what nobody has replayed or dropped.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import FAILED, LabError
from lab.group import Json, add_group, confirm
from lab.ledger import ABANDONED, COMPLETED, IN_PROGRESS
from lab.stuck import post_all
from lab.system import Data, PortBase, System

if TYPE_CHECKING:
    import httpx

    from lab.client import Answer, Patience
    from lab.dead_letters import Letter

PATIENCE_S = 20.0
AT_ONCE = 8
LOOKED_UP = 200  # letters whose orders are looked up before more are read
UNREADABLE = "kept: its event cannot be read, so that nobody knows which order to replay (see duet dlq show)"
NOT_NOW = {
    IN_PROGRESS: "kept: the order is in progress; if it fails again, it can be replayed",
    COMPLETED: "kept: the order is completed and no step of it failed (duet dlq drop clears the entry)",
}

Keys = Annotated[list[str] | None, typer.Argument(help="Keys as `list` shows them.", metavar="KEY...")]
All = Annotated[bool, typer.Option("--all", help="All that `list` shows and that tell of an order.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before --all.")]


def register(app: typer.Typer) -> None:
    """Add `duet dlq`."""
    add_group(
        app,
        "dlq",
        "Events that a participant gave up: see, show, replay, drop.",
        {"list": list_letters, "show": show, "replay": replay, "drop": drop},
    )


def list_letters(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Those of mended orders, too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 100,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """List dead letters, oldest first: who gave up which order's event, why, after how many errors, when.

    Shown are those that are open: the step still failed, by checkout's word, or the event cannot be read.
    """
    system = System.locate(port_base, data)
    found = _read(system, limit + 1) if every else _read_open(context, system, limit + 1)
    shown = found[:limit]
    if as_json:
        letters = [letter.as_document() for letter in shown]
        typer.echo(json.dumps({"dead_letters": letters, "more": len(found) > limit}))
        return
    if not found:
        typer.echo("There are no dead letters." if every else "No dead letter is open.")
    for key in dict.fromkeys(letter.key for letter in shown):
        _print_letters(_of(shown, key))
    if len(found) > limit:
        typer.echo(f"and more: see them with --limit, or --limit {limit * 10} --json")


def show(
    key: Annotated[str, typer.Argument(help="The key as `list` shows it: an order's id, mostly.")],
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Show the dead letters of one key with the event itself, which holds personal data."""
    letters = _of(_read(System.locate(port_base, data)), key)
    if as_json:
        typer.echo(json.dumps([letter.as_document(with_event=True) for letter in letters]))
        return
    _print_letters(letters)
    typer.echo("the event:")
    for line in letters[-1].event_lines():
        typer.echo(f"  {line}")
    then = "once the cause is mended: duet dlq replay" if letters[-1].readable else "clear it: duet dlq drop"
    typer.echo(f"{then} {key}")


def replay(
    context: typer.Context,
    keys: Keys = None,
    every: All = False,
    yes: Yes = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Retry the orders of dead letters, as `duet stuck retry` does, then clear the entries.

    What checkout refuses to retry keeps its entry, and so does an event that cannot be read, which tells of
    no order. The exit code is 1 if there was such a one.
    """
    system = System.locate(port_base, data)
    if bool(keys) == every:
        raise LabError("say which dead letters to replay: their keys, or --all")
    if every:
        found = _read_open(context, system)
        keys = list(dict.fromkeys(letter.key for letter in found if letter.readable))
        if not keys and not as_json:
            typer.echo("No dead letter is open.")
        confirm(f"replay {len(keys)} orders?", yes=yes or not keys)
    else:
        found = _read(system)
    wanted = {key: _of(found, key) for key in keys or []}
    kept = asyncio.run(_replay(context, system, wanted))
    if as_json:
        replayed = [key for key in wanted if key not in kept]
        typer.echo(json.dumps({"replayed": replayed, "kept": kept}))
    else:
        for key in wanted:
            typer.echo(f"{key}: {kept.get(key, 'replayed')}", err=key in kept)
    if kept:
        raise typer.Exit(FAILED)


def drop(
    keys: Annotated[list[str], typer.Argument(help="Keys as `list` shows them.", metavar="KEY...")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before.")] = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Clear entries without a replay, the events in them included. What the orders say stays as it is."""
    system = System.locate(port_base, data)
    found = _read(system)
    letters = [letter for key in dict.fromkeys(keys) for letter in _of(found, key)]
    confirm(f"drop {len(letters)} dead letters with their events?", yes=yes)
    asyncio.run(_drop(system, letters))
    for key in dict.fromkeys(keys):
        typer.echo(f"{key}: dropped")


async def _drop(system: System, letters: Sequence["Letter"]) -> None:
    from lab.broker import connect
    from lab.dead_letters import clear

    async with connect(system) as jetstream:
        for letter in letters:
            await clear(jetstream, letter)


async def _replay(
    context: typer.Context, system: System, wanted: Mapping[str, Sequence["Letter"]]
) -> dict[str, str]:
    """Retry the orders and clear their entries; by key, why an entry was kept."""
    from lab.broker import connect
    from lab.client import Patience, ensure_running, open_client
    from lab.dead_letters import clear
    from lab.reading import get_checkout

    kept = {key: UNREADABLE for key, letters in wanted.items() if not letters[-1].readable}
    patience = Patience(PATIENCE_S)
    async with open_client(context.obj) as client, connect(system) as jetstream:
        await ensure_running(client, system)
        order_ids = [key for key in wanted if key not in kept]
        answers = await post_all(client, system, "retry", order_ids, patience)
        for key, answer in answers.items():
            if answer.status < 300:
                for letter in wanted[key]:
                    await clear(jetstream, letter)
            else:
                order = await get_checkout(client, system, key, patience)
                kept[key] = _why_kept(answer, order)
    return kept


def _why_kept(answer: "Answer", order: Mapping[str, Any] | None) -> str:
    """Why checkout did not retry an order, in the words of this command."""
    from lab.client import problem_lines

    if order is None:
        return "kept: checkout knows no such order"
    told = " - ".join(problem_lines(answer)[:2])
    return NOT_NOW.get(order["status"], f"kept: checkout refused: {told}")


def _of(letters: Sequence["Letter"], key: str) -> list["Letter"]:
    found = [letter for letter in letters if letter.key == key]
    if not found:
        raise LabError(f"there is no dead letter with the key {key}", FAILED)
    return found


def _read(system: System, limit: int | None = None) -> list["Letter"]:
    """The dead letters, the oldest first, at most `limit`."""
    from lab.broker import connect
    from lab.dead_letters import MOST_LETTERS, read_letters

    async def run() -> list["Letter"]:
        async with connect(system) as jetstream:
            return await read_letters(jetstream, limit or MOST_LETTERS)

    return asyncio.run(run())


def _read_open(context: typer.Context, system: System, limit: int | None = None) -> list["Letter"]:
    """The open ones of the dead letters, the oldest first, at most `limit`."""
    from lab.broker import connect
    from lab.client import Patience, ensure_running, open_client
    from lab.dead_letters import read_letters

    async def run() -> list["Letter"]:
        found: list[Letter] = []
        async with open_client(context.obj) as client, connect(system) as jetstream:
            await ensure_running(client, system)
            letters = await read_letters(jetstream, LOOKED_UP)
            while letters:
                found += await _open_of(client, system, letters, Patience(PATIENCE_S))
                if limit is not None and len(found) >= limit:
                    return found[:limit]
                letters = await read_letters(jetstream, LOOKED_UP, after=letters[-1].sequence)
        return found

    return asyncio.run(run())


async def _open_of(
    client: "httpx.AsyncClient", system: System, letters: Sequence["Letter"], patience: "Patience"
) -> list["Letter"]:
    """Those of the letters whose step has still come to nothing, or whose order checkout does not know."""
    from lab.client import each
    from lab.reading import get_checkout

    orders: dict[str, Mapping[str, Any] | None] = {}

    async def look(key: str) -> None:
        orders[key] = await get_checkout(client, system, key, patience)

    try:
        await each(list(dict.fromkeys(letter.key for letter in letters if letter.readable)), look, AT_ONCE)
    except LabError as error:
        hint = "`duet dlq list --all` asks the broker alone"
        raise LabError(f"{error} ({hint})", error.exit_code) from None
    return [letter for letter in letters if _is_open(letter.participant, orders.get(letter.key))]


def _is_open(participant: str, order: Mapping[str, Any] | None) -> bool:
    step = order["steps"].get(participant) if order else None
    if order is None or step is None:
        return True
    if step["status"] == "pending":  # of a completed order nothing is tried unless somebody asks
        return bool(order["status"] != IN_PROGRESS)
    return bool(step["status"] == "failed" and step.get("reason") != ABANDONED)


def _print_letters(letters: Sequence["Letter"]) -> None:
    """The letters of one key: who gave the event up, when and why."""
    from lab.text import plain

    what = "" if letters[-1].readable else "  unreadable: it tells of no order"
    typer.echo(f"{letters[-1].key}{what}")
    for letter in letters:
        errors = f"{letter.errors} {'error' if letter.errors == 1 else 'errors'}"
        typer.echo(plain(f"  {letter.participant}: {letter.at}, after {errors}: {letter.reason}"))
