"""How `duet stop`, `start`, `pause`, `resume`, `kill`, `wipe`, `deploy` and `ps` reach the supervisor.

One JSON line each way over TCP on loopback, at the port base plus 24: {"token", "verb", "name"}, and
"arguments" for `weather`, gives {"ok": true, "result"} or {"ok": false, "error", "exit_code"}. A request
without the operator's token is refused, since any local program can connect.
"""

import asyncio
import contextlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Annotated, Any

import typer

from lab.errors import FAILED, LabError
from lab.supervisor import Supervisor
from lab.system import HOST, Data, PortBase, System

LINE_LIMIT_BYTES = 4096
REQUEST_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 30.0  # a stop takes up to the grace of ten seconds, and a bit
CONNECTIONS = 32
READY_POLL_S = 0.05
VERBS = {
    "stop": "End a process and keep it ended until `duet start`.",
    "start": "Start a stopped process.",
    "pause": "Freeze a process (SIGSTOP) until `duet resume`.",
    "resume": "Let a paused process go on.",
    "kill": "Kill a process (SIGKILL); the supervisor starts it anew.",
    "wipe": "Kill the broker, delete its streams, and start it anew.",
    "deploy": "Start a service anew, or a new one, from its code as it is now; its database is migrated.",
}
Deploy = Callable[[str], Awaitable[str]]
SetWeather = Callable[[str | None, Any], Awaitable[dict[str, Any]]]  # of a name and its arguments

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@contextlib.asynccontextmanager
async def serve_control(
    system: System, supervisor: Supervisor, deploy: Deploy, weather: SetWeather
) -> AsyncIterator[None]:
    """Take commands for the supervisor while the context lasts; raise `OSError` where the port is in use."""
    token = system.tokens().operator
    free = asyncio.Semaphore(CONNECTIONS)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The end of the system cancels what is still being answered.
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.CancelledError):
            if not free.locked():
                async with free, asyncio.timeout(REPLY_TIMEOUT_S):
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        line = await reader.readline()
                    reply = await _answer(line, token, supervisor, deploy, weather)
                    writer.write(json.dumps(reply).encode() + b"\n")
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, HOST, system.control_port, limit=LINE_LIMIT_BYTES)
    try:
        yield
    finally:
        server.close()


def call(
    system: System, verb: str, name: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Any:
    """Ask the supervisor of a system; return its result, raise `LabError` with its refusal or its absence."""
    request = {"token": system.tokens().operator, "verb": verb, "name": name, "arguments": arguments}
    try:
        with socket.create_connection((HOST, system.control_port), timeout=REPLY_TIMEOUT_S) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                reply = json.loads(answers.readline(1024 * 1024))
    except ConnectionRefusedError:
        raise LabError(
            f"nothing runs at port base {system.port_base}: start it with `duet up`, or give its --port-base",
            FAILED,
        ) from None
    except (OSError, ValueError) as error:
        raise LabError(
            f"the supervisor at port {system.control_port} gave no answer: {error}", FAILED
        ) from error
    if not reply["ok"]:
        raise LabError(str(reply["error"]), int(reply["exit_code"]))
    return reply["result"]


async def until_ready(system: System, name: str, timeout_s: float) -> None:
    """Return once a process is ready. Raises `LabError` if it is not in time, or as `call` does."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        rows: list[dict[str, Any]] = await asyncio.to_thread(call, system, "ps")
        if any(row["name"] == name and row["ready"] for row in rows):
            return
        await asyncio.sleep(READY_POLL_S)
    raise LabError(f"{name} is not ready after {timeout_s:.0f} s", FAILED)


def register(app: typer.Typer) -> None:
    """Add `duet ps` and the verbs."""
    app.command("ps", help="Show the processes: state, process id, readiness.")(_ps)
    for verb, what in VERBS.items():
        app.command(verb, help=what)(_command(verb))


async def _answer(
    line: bytes, token: str, supervisor: Supervisor, deploy: Deploy, weather: SetWeather
) -> dict[str, Any]:
    try:
        request = json.loads(line)
        told, verb, name = str(request["token"]), str(request["verb"]), str(request.get("name"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"ok": False, "error": "not a request", "exit_code": FAILED}
    if not hmac.compare_digest(told.encode(), token.encode()):
        return {"ok": False, "error": "that is not the operator's token of this system", "exit_code": FAILED}
    try:
        if verb == "ps":
            return {"ok": True, "result": await supervisor.fresh_rows()}
        if verb == "deploy":
            return {"ok": True, "result": await deploy(name)}
        if verb == "weather":
            which = None if request.get("name") is None else name
            return {"ok": True, "result": await weather(which, request.get("arguments"))}
        return {"ok": True, "result": await supervisor.command(verb, name)}
    except LabError as error:
        return {"ok": False, "error": str(error), "exit_code": error.exit_code}


def _command(verb: str) -> Any:
    def run(
        name: Annotated[str, typer.Argument(help="The process, as `duet ps` names it.")],
        port_base: PortBase = None,
        data: Data = None,
    ) -> None:
        typer.echo(call(System.locate(port_base, data), verb, name))

    return run


def _ps(port_base: PortBase = None, data: Data = None, as_json: Json = False) -> None:
    rows = call(System.locate(port_base, data), "ps")
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console

    from lab.table import processes_table

    Console().print(processes_table(rows))
