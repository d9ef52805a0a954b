"""`duet slow`, `duet flaky`, `duet calm` and `duet weather`: the wires of a running system, by hand.

They refuse a service that has no wires, and a time or a share out of bounds.
"""

import json
from typing import Annotated, Literal

import typer

from lab.control import Json
from lab.system import Data, PortBase, System
from lab.wire.weather import (
    CLEAR,
    SEED,
    Weather,
    flaky,
    in_words,
    read_duration,
    read_share,
    read_weather,
    slow,
)

Name = Annotated[str, typer.Argument(help="A service but checkout, as `duet ps` names it.")]
Wire = Annotated[
    Literal["rest", "broker", "both"],
    typer.Option("--wire", help="Its REST port, its connection to the broker, or both."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("slow")(_slow)
    app.command("flaky")(_flaky)
    app.command("calm")(_calm)
    app.command("weather")(_weather)


def _slow(
    name: Name,
    time: Annotated[str, typer.Argument(help="How much: 2s, 300ms; at most 60s.")],
    kind: Annotated[
        Literal["delay", "drip", "swallow"],
        typer.Option(
            "--kind",
            help="delay: replies come so much later; drip: a few bytes at a time, over so long; "
            "swallow: never, and the connection is reset after so long.",
        ),
    ] = "delay",
    wire: Wire = "both",
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Let everything that a service says come late, until `duet calm`.

    At the first time the service is started anew, behind proxies between it and the others; it stays behind
    them until `duet up` ends (`duet up --wires` begins so).
    """
    _set(port_base, data, name, slow(read_duration(time), kind), wire)


def _flaky(
    name: Name,
    share: Annotated[str, typer.Argument(help="How many exchanges fail: 10%; at most 100%.")],
    seed: Annotated[int, typer.Option("--seed", help="Which ones are drawn.")] = SEED,
    wire: Wire = "both",
    port_base: PortBase = None,
    data: Data = None,
) -> None:
    """Let a share of a service's exchanges fail, until `duet calm`: connection reset, reply lost or cut.

    At the first time the service is started anew, behind proxies between it and the others; it stays behind
    them until `duet up` ends (`duet up --wires` begins so).
    """
    _set(port_base, data, name, flaky(read_share(share), seed), wire)


def _calm(name: Name, wire: Wire = "both", port_base: PortBase = None, data: Data = None) -> None:
    """End what `duet slow` and `duet flaky` began; what is late already still comes late.

    The service stays behind its proxies, which pass everything on, until `duet up` ends.
    """
    _set(port_base, data, name, CLEAR, wire)


def _weather(port_base: PortBase = None, data: Data = None, as_json: Json = False) -> None:
    """Show the weather of every service that stands behind proxies, and how many exchanges it has hit."""
    from lab.wire import control

    state = control.read_weather(System.locate(port_base, data))
    if as_json:
        typer.echo(json.dumps(state))
        return
    for name, wires in state.items():
        for wire, told in wires.items():
            hits = ", ".join(f"{hit} {kind}" for kind, hit in told["hit"].items() if hit) or "none"
            words = in_words(read_weather(told["weather"]))
            typer.echo(f"{name} {wire}: {words}; hit so far: {hits}, of {told['exchanges']} exchanges")
    if not state:
        typer.echo("no service stands behind proxies")


def _set(
    port_base: int | None, data: Data, name: str, weather: Weather, wire: Literal["rest", "broker", "both"]
) -> None:
    from lab.wire import control

    control.set_weather(System.locate(port_base, data), name, weather, wire)
    where = "REST and broker" if wire == "both" else wire
    typer.echo(f"{name}'s weather ({where}): {in_words(weather)}")
