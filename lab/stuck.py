"""`duet stuck`: the orders that wait for a person, why, and what can be done: retry or abandon.

It shows orders that need attention, and those unfinished for over a minute. It refuses to decide anything
itself: checkout says what an order's status allows.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lab.errors import FAILED, LabError
from lab.group import Json, add_group, confirm
from lab.ledger import ABANDONED, IN_PROGRESS, NEEDS_ATTENTION
from lab.outcome import holding_up
from lab.system import CONDUCTOR, Data, PortBase, System

if TYPE_CHECKING:
    import httpx

    from lab.client import Answer, Patience

PATIENCE_S = 20.0
OVERDUE_S = 60
AT_ONCE = 8

R = TypeVar("R")

OrderIds = Annotated[list[str] | None, typer.Argument(help="Ids of orders.", metavar="ID...")]
All = Annotated[
    bool, typer.Option("--all", help="All orders that `duet stuck list` shows and nobody gave up.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before --all.")]


def register(app: typer.Typer) -> None:
    """Add `duet stuck`."""
    add_group(
        app,
        "stuck",
        "Orders that wait for a person: see, retry, abandon.",
        {"list": list_stuck, "show": show, "retry": retry, "abandon": abandon},
    )


def list_stuck(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 100,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """List orders that need attention, and those unfinished for over a minute, oldest first."""
    system = System.locate(port_base, data)
    found = _run(context, system, lambda client, patience: find_stuck(client, system, patience, limit + 1))
    shown = found[:limit]
    if as_json:
        typer.echo(json.dumps({"checkouts": shown, "more": len(found) > limit}))
        return
    if not found:
        typer.echo("No order is stuck.")
        return
    for order in shown:
        _print_stuck(order)
    if len(found) > limit:
        typer.echo(f"and more: see them with --limit, or --limit {limit * 10} --json")


def show(
    context: typer.Context,
    order_id: Annotated[str, typer.Argument(help="The order's id.", metavar="ID")],
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Show one order and its steps, whatever its status."""
    system = System.locate(port_base, data)
    order = _run(context, system, lambda client, patience: _get(client, system, order_id, patience))
    if as_json:
        typer.echo(json.dumps(order))
        return
    from rich.console import Console

    from lab.order_view import headline, steps_table, waiting_for

    Console().print(headline(order), steps_table(order), sep="\n")
    typer.echo(f"accepted {order['accepted_at']}, completed {order['completed_at'] or 'not yet'}")
    if order["status"] == IN_PROGRESS:
        typer.echo(f"waiting for {waiting_for(order)}")
    if order["status"] == NEEDS_ATTENTION:
        typer.echo(f"once the cause is mended: duet stuck retry {order_id} (or abandon)")


def retry(
    context: typer.Context,
    order_ids: OrderIds = None,
    every: All = False,
    yes: Yes = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Perform the failed steps of orders again. The exit code is 1 if checkout refused one."""
    _act(
        context,
        System.locate(port_base, data),
        "retry",
        order_ids or [],
        every=every,
        yes=yes,
        as_json=as_json,
    )


def abandon(
    context: typer.Context,
    order_ids: OrderIds = None,
    every: All = False,
    yes: Yes = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Give up what is unfinished of orders: it fails, as abandoned. The exit code is 1 if one was refused."""
    _act(
        context,
        System.locate(port_base, data),
        "abandon",
        order_ids or [],
        every=every,
        yes=yes,
        as_json=as_json,
    )


async def find_stuck(
    client: "httpx.AsyncClient", system: System, patience: "Patience", limit: int | None = None
) -> list[dict[str, Any]]:
    """At most `limit` orders: those that need attention, then those unfinished for over a minute.

    Orders that an operator has given up wait for nobody, and are left out.
    """
    from lab.reading import list_checkouts

    found: list[dict[str, Any]] = []
    for status, older_than_s in ((NEEDS_ATTENTION, None), (IN_PROGRESS, OVERDUE_S)):
        if limit is not None and len(found) >= limit:
            break
        async for order in list_checkouts(client, system, patience, status=status, older_than_s=older_than_s):
            if is_given_up(order):
                continue
            found.append(order)
            if limit is not None and len(found) >= limit:
                break
    return found


def is_given_up(order: Mapping[str, Any]) -> bool:
    """Whether an operator has abandoned all that did not come about, so that nothing waits for anybody."""
    left = list(holding_up(order).values())
    return bool(left) and all(step.get("reason") == ABANDONED for step in left)


def _print_stuck(order: Mapping[str, Any]) -> None:
    status = order["status"].replace("_", " ")
    typer.echo(f"{order['order_id']}  {status}, {order['style']}, accepted {order['accepted_at']}")
    for name, step in holding_up(order).items():
        typer.echo(f"  {name}: {trouble(step)}")
    if not order["steps"]:
        typer.echo("  no step is known yet: nobody has joined")


def trouble(step: Mapping[str, Any]) -> str:
    """Why a step has not come about and since when, in a few words."""
    tries = f"{step['attempts']} {'try' if step['attempts'] == 1 else 'tries'}"
    if step["status"] == "failed":
        return f"failed after {tries}: {step.get('reason')}"
    if step.get("last_error"):
        return f"pending after {tries}: {step['last_error']} since {step.get('since')}"
    return f"pending, {tries} yet"


def _act(
    context: typer.Context,
    system: System,
    verb: str,
    order_ids: Sequence[str],
    *,
    every: bool,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(order_ids) == every:
        raise LabError(f"say which orders to {verb}: their ids, or --all")
    if every:
        found = _run(context, system, lambda client, patience: find_stuck(client, system, patience))
        if verb == "retry":  # what is in progress is being retried anyway
            found = [order for order in found if order["status"] == NEEDS_ATTENTION]
        order_ids = [order["order_id"] for order in found]
        confirm(f"{verb} {len(order_ids)} orders?", yes=yes or not order_ids)
    done = _run(context, system, lambda client, patience: post_all(client, system, verb, order_ids, patience))
    refused = [order_id for order_id, answer in done.items() if answer.status >= 300]
    if as_json:
        typer.echo(json.dumps({order_id: answer.body for order_id, answer in done.items()}))
    else:
        from lab.client import problem_lines

        for order_id, answer in done.items():
            text = " - ".join(problem_lines(answer)[:2]) if order_id in refused else answer.body["status"]
            typer.echo(f"{order_id}: {text.replace('_', ' ')}", err=order_id in refused)
    if refused:
        raise typer.Exit(FAILED)


async def post_all(
    client: "httpx.AsyncClient", system: System, verb: str, order_ids: Sequence[str], patience: "Patience"
) -> dict[str, "Answer"]:
    """POST an operator's verb (retry, abandon) for each order; checkout's answers by order id, refusals too.

    Raises `NoAnswerError` where checkout gives no answer.
    """
    from urllib.parse import quote

    from lab.client import Call, bearer, each, send

    headers = bearer(system.tokens().operator)
    answers: dict[str, Answer] = {}

    async def post(order_id: str) -> None:
        url = f"{system.url(CONDUCTOR)}/checkouts/{quote(order_id, safe='')}/{verb}"
        answers[order_id] = await send(client, Call("POST", url, headers), patience)

    await each(list(dict.fromkeys(order_ids)), post, AT_ONCE)
    return answers


async def _get(
    client: "httpx.AsyncClient", system: System, order_id: str, patience: "Patience"
) -> dict[str, Any]:
    from lab.reading import get_checkout

    order = await get_checkout(client, system, order_id, patience)
    if order is None:
        raise LabError(f"checkout knows no order {order_id}", FAILED)
    return order


def _run(
    context: typer.Context, system: System, work: Callable[["httpx.AsyncClient", "Patience"], Awaitable[R]]
) -> R:
    from lab.client import Patience, ensure_running, open_client

    async def run() -> R:
        async with open_client(context.obj) as client:
            await ensure_running(client, system)
            return await work(client, Patience(PATIENCE_S))

    return asyncio.run(run())
