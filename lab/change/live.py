"""The system of a scratch tree while it is changed: started, deployed to service by service, asked, ended.

It is what a person would do by hand with `duet up`, `duet deploy`, `duet audit` and the rest, and all of it
runs the tree's own code.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab.bench.children import running
from lab.bench.whole import free_port_base
from lab.change.tree import Tree
from lab.client import Call, Patience, expect, send
from lab.control import call, until_ready
from lab.errors import FAILED, LabError
from lab.reading import list_checkouts
from lab.system import CONDUCTOR, System, discover_services

START_S = 90.0
STOP_S = 30.0
READY_S = 60.0
ASK = Patience(20.0)
REST, EVENTS = "REST", "events"
PATHS = {REST: "/openapi.json", EVENTS: "/asyncapi"}
KINDS = {"orchestration": REST, "choreography": EVENTS}


@dataclass(frozen=True, slots=True)
class Live:
    """A running system of a tree."""

    tree: Tree
    data: Path
    port_base: int
    client: httpx.AsyncClient

    @property
    def system(self) -> System:
        """Where it is, with the services that the tree has now."""
        return System(self.data, self.port_base, discover_services(self.tree.root))

    async def deploy(self, name: str) -> None:
        """Deploy one service; it is not ready yet. Raises `LabError`."""
        await asyncio.to_thread(call, self.system, "deploy", name)

    async def ready(self, name: str) -> None:
        """Return once the process of a service that was just deployed is ready. Raises `LabError`."""
        await until_ready(self.system, name, READY_S)

    async def contracts(self, style: str) -> dict[str, str]:
        """The digest of each document that says what is taken and told in a style, by service and kind.

        Checkout's REST document is what clients are promised, in both styles.
        """
        documents = dict.fromkeys(
            [(CONDUCTOR, REST), *((s.name, KINDS[style]) for s in self.system.services)]
        )
        return {f"{name} {kind}": await self._digest(name, PATHS[kind]) for name, kind in documents}

    async def orders(self) -> list[dict[str, Any]]:
        """All orders that checkout knows, unparsed: a changed tree may have statuses unknown to this code."""
        return [order async for order in list_checkouts(self.client, self.system, ASK)]

    async def duet(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command of the tree's own `duet` on this system: exit code, output, errors."""
        where = ("--port-base", str(self.port_base), "--data", str(self.data))
        return await asyncio.to_thread(self.tree.run, "-m", "lab", *arguments, *where, env=self._state)

    async def audit(self) -> dict[str, Any]:
        """What `duet audit` reports, balanced or not."""
        _, output, errors = await self.duet("audit", "--wait", "120", "--json")
        try:
            report: dict[str, Any] = json.loads(output)
        except ValueError:
            raise LabError(f"duet audit failed: {errors.strip()[-1000:]}", FAILED) from None
        return report

    async def program(self, file: Path, style: str) -> dict[str, Any]:
        """Run a scenario's own program on this system; the line of JSON that it prints.

        One that fails, or says nothing, has proved nothing.
        """
        where = ("--port-base", str(self.port_base), "--data", str(self.data), "--style", style)
        code, output, errors = await asyncio.to_thread(self.tree.run, str(file), *where, env=self._state)
        try:
            said: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            said = {"what": f"exit code {code}: {errors.strip()[-600:]}"}
        said["proved"] = said.get("proved") is True and code == 0
        return said

    async def _digest(self, name: str, path: str) -> str:
        document = expect(await send(self.client, Call("GET", self.system.url(name) + path), ASK))
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    @property
    def _state(self) -> Mapping[str, str]:
        return {"XDG_STATE_HOME": str(self.data.parent / "state")}


@asynccontextmanager
async def live(tree: Tree, folder: Path, client: httpx.AsyncClient) -> AsyncIterator[Live]:
    """Start the tree's system with its data in `folder`, and end it on the way out. Raises `LabError`."""
    base, data = free_port_base(), folder / "duet"
    arguments = ("up", "--json", "--port-base", str(base), "--data", str(data), "--mail", "null")
    env = tree.environment({"XDG_STATE_HOME": str(folder / "state")})
    async with running(
        "duet up",
        "lab",
        *arguments,
        env=env,
        log=folder / "up.log",
        talks=True,
        stop_timeout_s=STOP_S,
        root=tree.root,
    ) as up:
        await up.ask(b"", START_S)
        yield Live(tree, data, base, client)
