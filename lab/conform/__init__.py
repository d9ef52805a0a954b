"""`duet conform`: whether an implementation of the checkout API, in any language, keeps to it.

Only the command line is here: what an examination needs is imported when it runs. It refuses addresses beyond
this machine unless they are said to be meant: it places orders.
"""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lab.errors import FAILED, LabError
from lab.group import Json
from lab.system import CONDUCTOR, Data, PortBase, System, note_file

if TYPE_CHECKING:
    from lab.conform.examination import Examination, Result
    from lab.targets import EffectsAt, Target

Url = Annotated[
    str | None,
    typer.Argument(
        help="Where it takes orders: what comes before /checkouts (default: the target's).", metavar="URL"
    ),
]
TargetFile = Annotated[
    Path | None,
    typer.Option("--target", help="FILE.toml that names its tokens and `/effects` (docs/lab.md)."),
]
Style = Annotated[
    Literal["orchestration", "choreography", "both"] | None,
    typer.Option("--style", help="Examine in this style (default: in those that it serves)."),
]
Remote = Annotated[bool, typer.Option("--remote", help="URL is not on this machine, and is mine to try.")]


def register(app: typer.Typer) -> None:
    """Add `duet conform`."""
    app.command("conform")(conform)


def conform(
    context: typer.Context,
    url: Url = None,
    target: TargetFile = None,
    style: Style = None,
    remote: Remote = False,
    as_json: Json = False,
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Check that an implementation of the checkout API does what docs/api.md says.

    It places about 60 orders in each style, some of them badly, and reads what became of them. Whether each
    effect came about exactly once is checked where `/effects` are known: from --target, or from a `duet up`,
    which is found by --port-base, --data or the URL's port. Let nobody else place orders meanwhile. The exit
    code is 1 if a check fails; a skipped one says why.
    """
    from lab.client import open_client
    from lab.conform.examination import as_document, examine
    from lab.order import STYLES

    chosen = _target(url, target, remote=remote, port_base=port_base, data=data)
    styles = STYLES if style == "both" else (style,) if style else (chosen.style,) if chosen.style else ()

    async def run() -> "Examination":
        async with open_client(context.obj) as client:
            return await examine(client, chosen, styles, (lambda _: None) if as_json else _print)

    examination = asyncio.run(run())
    if as_json:
        typer.echo(json.dumps(as_document(examination)))
    else:
        _print_end(examination)
    if not examination.passed:
        raise typer.Exit(FAILED)


def _target(
    url: str | None, file: Path | None, *, remote: bool, port_base: int | None, data: Path | None
) -> "Target":
    """What is to be examined: the file's, with the URL's address if one is given, or a system of our own."""
    from dataclasses import replace

    from lab.targets import Target, loopback_origin, read_target

    named = None if file is None else read_target(file.stem, file)
    ours = port_base is not None or data is not None
    if url is None:
        if named is not None:
            return named
        if not ours:
            raise LabError("say what to check: URL, --port-base, or --target FILE.toml, which names one")
        url = System.locate(port_base, data).url(CONDUCTOR)
    try:
        origin = loopback_origin(url, remote=remote, token=named.origin.token if named else None)
    except ValueError as error:
        raise LabError(f"{error}".replace("say remote = true", "say --remote")) from error
    if named is not None:
        return replace(named, origin=origin)
    if not ours and (remote or not note_file(origin.port).exists()):
        return Target("checkout", origin, "", "", {})
    return Target(
        "checkout",
        origin,
        "",
        "",
        _effects(System.locate(port_base, data) if ours else System.locate(origin.port)),
    )


def _effects(system: System) -> dict[str, "EffectsAt"]:
    from lab.ledger import OWED_BY_MEMBERS
    from lab.reading import effect_services
    from lab.targets import EffectsAt

    token = system.tokens().operator
    return {
        name: EffectsAt(f"{system.url(name)}/effects", token, name in OWED_BY_MEMBERS)
        for name in effect_services(system)
    }


def _print(result: "Result") -> None:
    from lab.conform.examination import FAIL, PASS
    from lab.text import plain

    named = f"{result.check.name} ({result.style})" if result.style else result.check.name
    typer.secho(f"{result.outcome:<8}{named}", fg={PASS: "green", FAIL: "red"}.get(result.outcome, "yellow"))
    if result.outcome == FAIL:
        typer.echo(f"        required: {result.check.requires} ({result.check.where})")
        typer.echo(f"        seen: {plain(result.seen)}")
    elif result.seen:
        typer.echo(f"        {plain(result.seen)}")


def _print_end(examination: "Examination") -> None:
    from collections import Counter

    from lab.conform.examination import FAIL, PASS, SKIPPED

    counts = Counter(result.outcome for result in examination.results)
    typer.echo(
        f"{counts[PASS]} passed, {counts[FAIL]} failed, {counts[SKIPPED]} skipped; "
        f"{examination.orders} orders were accepted at {examination.url}"
    )
