"""`duet order`: submits checkouts, keeps a synced list of what was accepted, shows steps as they finish.

It is a client as the API's documentation wants one; a retry never makes a second order.
"""

import asyncio
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lab.errors import FAILED, LabError
from lab.system import CONDUCTOR, Data, PortBase, System

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.outcome import Outcome
    from lab.placing import Listener, Plan

STYLES = ("orchestration", "choreography")
LARGEST_FILE_BYTES = 1024 * 1024

AcceptedFile = Annotated[
    Path | None,
    typer.Option(
        "--accepted",
        help="File of accepted order ids, one a line. (default: accepted.log of the data folder)",
    ),
]


def register(app: typer.Typer) -> None:
    """Add `duet order`."""
    app.command("order")(order)


def order(
    context: typer.Context,
    style: Annotated[
        Literal["orchestration", "choreography", "both"] | None,
        typer.Option("--style", help="both: they take turns (default: what the checkout service is set to)."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, max=100_000, help="How many orders (default: 1, or 1 of each style)."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            min=0.01,
            max=10_000,
            help="Orders per second, sent at intended times, at most 200 in flight (default: 16 at a time).",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Send this body instead of a sample; - is standard input."),
    ] = None,
    member: Annotated[
        bool | None,
        typer.Option(
            "--member/--no-member",
            help="Whether sample customers have joined rewards (default: yes; with --count three in five).",
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait", min=0, max=3600, help="Seconds to follow the orders after the last was accepted."
        ),
    ] = 30.0,
    accepted: AcceptedFile = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: counts (requested, accepted, refused, unanswered, completed, "
            "needs_attention, in_progress, retries, ...), under `styles` those of each style with its times, "
            "and under `orders` the representations, at most the first 1000.",
        ),
    ] = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Place orders, and show their steps as they finish.

    Each order has an Idempotency-Key of its own and is retried with it for up to two minutes. Its id is on
    disk before it is shown as accepted. Of the times shown, `answered` is by this command's clock, from when
    the order was due to leave, and `completed` by checkout's, from its acceptance. The exit code is 0 if all
    orders were accepted, whatever became of them since; 1 if one was not; 2 for wrong usage.
    """
    from lab import order_view
    from lab.placing import Plan

    system = System.locate(port_base, data)
    styles = _styles(style)
    number = count or max(1, len(styles))
    plan = Plan(
        url=system.url(CONDUCTOR),
        body=_bodies(file, member, many=count is not None and count > 1),
        count=number,
        rate=rate,
        styles=styles,
        follow_s=wait_s,
        detached=number <= order_view.FEW or wait_s == 0,
    )
    target = accepted or system.accepted_file
    with order_view.view(number, as_json=as_json) as shown:
        outcome = asyncio.run(_run(context, system, plan, target, shown))
    if as_json:
        typer.echo(json.dumps(order_view.as_document(outcome)))
    else:
        for line in order_view.summary_lines(outcome, _audit_command(system, accepted)):
            typer.echo(line)
    if not outcome.all_accepted:
        raise typer.Exit(FAILED)


async def _run(
    context: typer.Context, system: System, plan: "Plan", target: Path, shown: "Listener"
) -> "Outcome":
    from lab import client as http
    from lab.placing import place_orders
    from lab.synced import SyncedLines

    async with http.open_client(context.obj) as client:
        await http.ensure_running(client, system)
        async with SyncedLines(target) as lines:
            return await place_orders(client, plan, lines, shown)


def _audit_command(system: System, accepted: Path | None) -> str:
    chosen = "" if accepted is None else f" --accepted {shlex.quote(str(accepted))}"
    return f"duet audit --port-base {system.port_base} --wait 60{chosen}"


def _styles(style: str | None) -> tuple[str, ...]:
    if style is None:
        return ()
    return STYLES if style == "both" else (style,)


def _bodies(file: Path | None, member: bool | None, *, many: bool) -> "Callable[[int], bytes]":
    """By an order's number, its body: the file's as it is, the one sample, or the mix."""
    from lab.samples import mixed_order, sample_order

    if file is not None:
        if member is not None:
            raise LabError("--member and --no-member are for sample orders, not for a --file")
        content = _read(file)
        return lambda _: content
    if many:
        return lambda number: json.dumps(mixed_order(number, rewards_member=member)).encode()
    sample = json.dumps(sample_order(rewards_member=member is not False)).encode()
    return lambda _: sample


def _read(file: Path) -> bytes:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(LARGEST_FILE_BYTES + 1)
        else:
            with file.open("rb") as source:
                content = source.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise LabError(f"cannot read {file}: {error.strerror}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise LabError(f"{file} is larger than {LARGEST_FILE_BYTES} bytes: that is no order")
    return content
