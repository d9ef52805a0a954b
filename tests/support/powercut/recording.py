"""The real checkout service, under the recorder, while a client places orders and notes each answer's time.

Both styles in turn, with its three services and the broker out of reach: only the accept path and the
outcomes of failed calls write. Or orchestrated orders with services that answer: then their outcomes ride.
Nothing here needs root.
"""

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from servicekit.settings import EXIT_BAD_SETTINGS
from tests.support.ports import HOST, port_base
from tests.support.powercut.disk import Record, read_records
from tests.support.system import ORDER, eventually, surroundings

SOURCE = Path(__file__).parent / "record.c"
CLIENTS = 8
STYLES = ("orchestration", "choreography")
AT_ONCE = {"Prefer": "respond-async"}
COMMAND_S = 60.0
NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens there
NO_BROKER = "nats://127.0.0.1:9"
DURABLE_FILES = ("", "-wal", "-journal")  # a crash loses -shm, which SQLite makes anew


@dataclass(frozen=True)
class Recording:
    """`before`: the files as they were; `records`: all that was done to them; `acked`: order id and ns.

    `completed`: the same, of orders that were answered as completed.
    """

    database: Path
    before: dict[str, bytes]
    records: list[Record]
    acked: dict[str, int]
    completed: dict[str, int]


def why_not() -> str | None:
    """Why nothing can be recorded on this machine; None if it can."""
    if sys.platform != "linux":
        return "the recorder is loaded by LD_PRELOAD, which is Linux's"
    if shutil.which("cc") is None:
        return "no C compiler (cc) for the recorder: on Debian, apt-get install gcc libc6-dev"
    return None


def compile_recorder(folder: Path) -> Path:
    """The recorder as a shared library; fails with the compiler's words."""
    library = folder / "record.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    return library


def record_accepts(
    folder: Path, recorder: Path, sources: Path, orders: int, services: Mapping[str, str] | None = None
) -> Recording:
    """Run the checkout service from `sources` under the recorder and have it accept so many orders.

    `services` are the URLs of services that answer, by name: then each order is waited for.
    """
    database, log = folder / "checkout.db", folder / "writes.log"
    with port_base() as port:
        environment = _environment(sources, database, port, services or {})
        command = [sys.executable, "-m", "servicekit.migrate", "checkout"]
        subprocess.run(command, cwd=sources, env=environment, check=True, timeout=COMMAND_S)
        before = {str(path): path.read_bytes() for path in _files(database) if path.exists()}
        recorded = {"LD_PRELOAD": str(recorder), "POWERCUT_LOG": str(log), "POWERCUT_FILES": str(database)}
        with (folder / "checkout.log").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "checkout"],
                cwd=sources,
                env=environment | recorded,
                stdout=output,
                stderr=output,
            )
        try:
            url = f"http://{HOST}:{port}"
            eventually(lambda: process.poll() is not None or _is_ready(url), 30, "checkout is ready")
            assert process.poll() is None, (folder / "checkout.log").read_text()
            acked, completed = asyncio.run(_place(url, orders, waiting=services is not None))
        finally:
            process.terminate()
            process.wait(COMMAND_S)
    assert process.returncode not in (EXIT_BAD_SETTINGS, -6), (folder / "checkout.log").read_text()
    wanted = {str(path) for path in _files(database)}
    records = [record for record in read_records(log) if record.path in wanted]
    return Recording(database, before, records, acked, completed)


def _files(database: Path) -> list[Path]:
    return [database.with_name(database.name + ending) for ending in DURABLE_FILES]


def _environment(sources: Path, database: Path, port: int, services: Mapping[str, str]) -> dict[str, str]:
    token = "t" * 32
    settings = {
        "CHECKOUT_PORT": str(port),
        "CHECKOUT_DATABASE_URL": f"sqlite:///{database}",
        "CHECKOUT_OPERATOR_TOKEN": token,
        "CHECKOUT_MIGRATE": "never",
        "CHECKOUT_NATS_URL": NO_BROKER,
    }
    for name in ("email", "warehouse", "rewards"):
        prefix = f"CHECKOUT_{name.upper()}"
        settings |= {f"{prefix}_URL": services.get(name, NOBODY), f"{prefix}_TOKEN": token}
    return surroundings() | settings | {"PYTHONPATH": str(sources)}


def _is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success


async def _place(url: str, orders: int, *, waiting: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Place orders from a few clients at once; by order id, when (CLOCK_MONOTONIC, ns) it was accepted.

    And those that were answered as completed, `waiting` for that.
    """
    acked: dict[str, int] = {}
    completed: dict[str, int] = {}
    left = iter(range(orders))

    async def client(http: httpx.AsyncClient) -> None:
        for number in left:
            style = {"style": STYLES[0 if waiting else number % len(STYLES)]}
            headers = {} if waiting else AT_ONCE
            answer = await http.post("/checkouts", params=style, json=ORDER, headers=headers)
            now = time.monotonic_ns()
            assert answer.status_code == (201 if waiting else 202), answer.text
            acked[answer.json()["order_id"]] = now
            if answer.json()["status"] == "completed":
                completed[answer.json()["order_id"]] = now

    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        async with asyncio.timeout(COMMAND_S):
            await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    return acked, completed
