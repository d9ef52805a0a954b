"""`duet up`: the whole system on embedded defaults, begun by one command and ended by one Ctrl-C.

In this order: hold the data folder, end what a killed supervisor left, find the ports free, start the broker
and migrate the databases, start the services, watch everything. It refuses to share a folder or a port with
anybody, and to run a broker that would acknowledge what is not on disk (but for measuring, when told so).
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from lab import broker, folder
from lab.broker_revival import revive_broker
from lab.control import Json, serve_control
from lab.deploy import deployer
from lab.errors import LabError
from lab.processes import StampBook, bound_log, end_leftovers, make_migration, make_programs
from lab.supervisor import Supervisor
from lab.system import (
    BROKER,
    DEFAULT_DATA,
    DEFAULT_PORT_BASE,
    HOST,
    MAILBOX,
    Data,
    Mail,
    PortBase,
    System,
)
from lab.wire.placed import Placed

TABLE_S = 0.5
FIRST = (MAILBOX, BROKER)  # they start while the databases are migrated
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add `duet up`."""
    app.command("up")(up)


def up(
    port_base: PortBase = None,
    data: Data = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin with an empty data folder.")] = False,
    mail: Annotated[Mail, typer.Option("--mail", help="smtp: the mailbox; null: record only.")] = "smtp",
    nats_url: Annotated[
        str | None,
        typer.Option(
            "--nats-url",
            envvar="DUET_NATS_URL",
            help="Use this broker (nats://host:port, tls://host:port) instead of one of its own; "
            "logins come from the environment (CHECKOUT_NATS_PASSWORD, ...).",
        ),
    ] = None,
    first_order: Annotated[
        bool,
        typer.Option("--first-order", help="Place an order in each style once all is ready, and show both."),
    ] = False,
    wires: Annotated[
        bool,
        typer.Option(
            "--wires",
            help="Every service but checkout begins behind the proxies of `duet slow` and `duet flaky`, "
            "which pass everything on until told otherwise: none is started anew for them later.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start the whole system and keep it running until Ctrl-C."""
    if first_order and as_json:
        raise LabError("--first-order is for a person to read: leave out --json")
    if nats_url and not nats_url.startswith(("nats://", "tls://")):
        raise LabError(f"--nats-url {nats_url}: give nats://host:port or tls://host:port")
    system = System(
        (data or DEFAULT_DATA).resolve(), port_base or DEFAULT_PORT_BASE, nats_url=nats_url or None
    )
    syncs = broker.syncs(system)
    if fresh:
        folder.refuse_strange_folder(system)
    os.umask(0o077)  # what the system writes holds customers' data
    with _stops_kept(), folder.hold(system):
        left = end_leftovers(system.supervisor_file, system.data)
        if fresh:
            folder.empty(system)
        folder.make_tokens(system)
        if system.nats_url is None:
            broker.make_files(system)
        _refuse_used_ports(system, mail)
        with folder.noted(system), _notices(system, as_json) as notice:
            if left:
                notice(f"ended what a killed supervisor had left running: {', '.join(left)}")
            if not syncs:
                notice("the broker does not sync: for measuring only")
            asyncio.run(_run(system, mail, as_json, notice, first_order=first_order, wires=wires))


@contextlib.contextmanager
def _stops_kept() -> Iterator[None]:
    """Keep a stop that comes before there is anybody to act on it; a library might swallow its exception."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _run(
    system: System,
    mail: Mail,
    as_json: bool,
    notice: Callable[[str], None],
    *,
    first_order: bool,
    wires: bool,
) -> None:
    """Serve until a signal; raise `LabError` where the system does not become ready."""
    asked_to_stop = asyncio.Event()
    for number in STOP_SIGNALS:
        if not (number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN):  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    book = StampBook(system.supervisor_file, system.port_base, notice, system.nats_url)
    placed = Placed(system, notice)
    if wires:
        placed.place_all()
    programs = make_programs(system, mail, placed.behind)
    supervisor = Supervisor(programs, book, notice, on_end=placed.process_ended)
    deploy = deployer(system, mail, supervisor, placed.behind)
    try:
        async with serve_control(system, supervisor, deploy, partial(placed.weather, deploy)):
            if await _before(asked_to_stop, _start(system, mail, supervisor)):
                urls = {row["name"]: row["url"] for row in supervisor.rows()}
                if as_json:
                    _say(json.dumps(_announcement(system, mail, supervisor)))
                else:
                    notice(f"all is ready: place orders at {urls['checkout']} (Ctrl-C ends everything)")
                if first_order:
                    await _before(asked_to_stop, _place_first_order(system, mail, notice))
                async with _reviving(system, supervisor, notice):
                    await _show_until(asked_to_stop, supervisor, as_json)
    finally:
        try:
            notice("stopping")
        finally:
            await supervisor.end()
            await placed.end()
        notice("nothing is running any more")


async def _start(system: System, mail: Mail, supervisor: Supervisor) -> None:
    """Migrate, with broker and mailbox starting beside, then the services; return when all are ready."""
    names = [row["name"] for row in supervisor.rows()]
    supervisor.launch(name for name in names if name in FIRST)
    await supervisor.run_once(make_migration(system, mail))
    supervisor.launch(name for name in names if name not in FIRST)
    await supervisor.until_ready()
    if system.nats_url is None:
        await broker.prove_durable(system)


async def _place_first_order(system: System, mail: Mail, notice: Callable[[str], None]) -> None:
    """Show a newcomer an order in each style; that it fails is said, and ends nothing."""
    from lab import tour

    try:
        await tour.first_order(system, mail)
    except LabError as error:
        notice(str(error))


@contextlib.asynccontextmanager
async def _reviving(
    system: System, supervisor: Supervisor, notice: Callable[[str], None]
) -> AsyncIterator[None]:
    """Look after the system's own broker while the context lasts."""
    if system.nats_url is not None:
        yield
        return
    reviving = asyncio.create_task(revive_broker(system, supervisor, notice))
    try:
        yield
    finally:
        reviving.cancel()
        await asyncio.gather(reviving, return_exceptions=True)


async def _before(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before the event; it is cancelled if not, and its error is raised."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return working.done()
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


async def _show_until(event: asyncio.Event, supervisor: Supervisor, as_json: bool) -> None:
    """Keep a table of the processes current on a terminal, until the event."""
    if as_json or not sys.stdout.isatty():
        await event.wait()
        return
    from rich.live import Live

    from lab.table import processes_table

    try:
        with Live(auto_refresh=False, redirect_stdout=True) as live:
            while not event.is_set():
                live.update(processes_table(supervisor.rows()), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TABLE_S):
                        await event.wait()
    except OSError:  # the terminal has gone: serve on without it, until told to stop
        await event.wait()


def _announcement(system: System, mail: Mail, supervisor: Supervisor) -> dict[str, Any]:
    rows = supervisor.rows()
    page = {"smtp": f"smtp://{HOST}:{system.smtp_port}", "page": system.url(MAILBOX)}
    return {
        "ready": True,
        "port_base": system.port_base,
        "data": str(system.data),
        "urls": {row["name"]: row["url"] for row in rows},
        "pids": {row["name"]: row["pid"] for row in rows},
        "mail": page if mail == "smtp" else None,
    }


def _refuse_used_ports(system: System, mail: Mail) -> None:
    ports = {service.name: system.port(service.name) for service in system.services}
    ports["the supervisor"] = system.control_port
    if system.nats_url is None:
        ports |= {"the broker": system.port(BROKER), "its monitoring": system.monitoring_port}
    if mail == "smtp":
        ports |= {"the mailbox": system.port(MAILBOX), "its SMTP": system.smtp_port}
    used = [f"{port} ({name})" for name, port in ports.items() if not _is_free(port)]
    if used:
        what = "port" if len(used) == 1 else "ports"
        raise LabError(
            f"{what} {', '.join(used)} in use: stop what listens there, or give another --port-base"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as the servers do: old connections may linger
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _notices(system: System, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Where the supervisor's lines go: into its log and, unless a program reads there, to standard output."""
    log = system.log_file("supervisor")
    bound_log(log)
    with log.open("a") as target:

        def notice(line: str) -> None:
            with contextlib.suppress(OSError):  # a full disk must not end the supervision
                target.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}\n")
                target.flush()
            if not as_json:
                _say(line)

        yield notice


def _say(line: str) -> None:
    """Print a line; a reader or a terminal that has gone away must not end the system."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
