"""The system of compose.yaml without a container engine: its commands and environments, as local processes.

PostgreSQL is the test session's own server, and the embedded mailbox stands in Mailpit's place; nats-server
is the one that is installed here, with compose's configuration but for where it listens and stores. The proxy
is left out: tests talk to each replica. Every process is ended by its id.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.compose.compose_file import ROOT, command_of, compose, environment_of, our_services
from tests.support.ports import port_base

OFFSETS = {"checkout-1": 0, "email": 1, "warehouse": 2, "rewards": 3, "checkout-2": 24}
SMTP_OFFSET, PAGE_OFFSET = 25, 26
BROKER_OFFSET, MONITOR_OFFSET = 22, 23
HEALTH_PATH = "/healthz?js-server-only=true"
READY_S = 60.0
STOP_S = 15.0  # compose's stop_grace_period
POLL_S = 0.1
ORDER: dict[str, Any] = {
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": True},
    "currency": "GBP",
    "lines": [{"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999}],
    "ship_to": {"line1": "12 St James Sq", "city": "London", "postcode": "SW1Y 4JH", "country": "GB"},
}


def make_secrets(folder: Path) -> Path:
    """What deploy/make_secrets.py makes, below another folder; returns its folder of secrets."""
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "deploy" / "make_secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FOLDER = folder / "secrets"
    module.main()
    made: Path = module.FOLDER
    return made


class ComposeSystem:
    """The running services, each by its name in compose.yaml."""

    def __init__(self, folder: Path, base: int, secrets: Path) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.page = f"http://127.0.0.1:{base + PAGE_OFFSET}"
        self._folder = folder
        self._secrets = secrets
        self._services = our_services(compose())
        self._own_ports = {name: base + offset for name, offset in OFFSETS.items()}
        self._ports = {
            **self._own_ports,
            "mailpit": base + SMTP_OFFSET,
            "nats": base + BROKER_OFFSET,
            "monitor": base + MONITOR_OFFSET,
        }

    def url(self, name: str) -> str:
        """Where a service listens."""
        return f"http://127.0.0.1:{self._own_ports[name]}"

    def secret(self, name: str) -> str:
        """What a secret's file holds."""
        return (self._secrets / name).read_text()

    @contextmanager
    def client(self, name: str, token: str) -> Iterator[httpx.Client]:
        """A client of a service, with a token."""
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.url(name), headers=headers, timeout=40, trust_env=False) as client:
            yield client

    def migrate(self) -> None:
        """Run the one-shot jobs, all at once as compose does."""
        jobs = [name for name in self._services if name.endswith("-migrate")]
        for name in jobs:
            self._start(name)
        for name in jobs:
            assert self.processes[name].wait(READY_S) == 0, self._log(name).read_text()

    def start(self) -> None:
        """Start mailbox and broker, then the services, checkout last; return when all are ready."""
        self._start_mailbox()
        self.start_broker()
        for names in (("email", "warehouse", "rewards"), ("checkout-1", "checkout-2")):
            for name in names:
                self._start(name)
            for name in names:
                eventually(lambda name=name: self._is_healthy(name), READY_S, f"{name} ready")

    def start_broker(self) -> None:
        """Start it, on what it stored before if it ran; return when it is ready."""
        config = json.loads(self.secret("nats.conf"))
        config["listen"] = f"127.0.0.1:{self._ports['nats']}"
        config["http"] = f"127.0.0.1:{self._ports['monitor']}"
        config["jetstream"]["store_dir"] = str(self._folder / "events")
        own = self._folder / "nats.conf"
        own.write_text(json.dumps(config))
        self._run("nats", [str(Path(sys.executable).with_name("nats-server")), "--config", str(own)], {})
        url = f"http://{config['http']}{HEALTH_PATH}"
        eventually(lambda: answers(url), READY_S, "the broker ready")

    def end(self) -> dict[str, int]:
        """SIGTERM to whatever still runs; exit codes by name. What does not end in its grace is killed."""
        running = {name: process for name, process in self.processes.items() if process.poll() is None}
        for process in running.values():
            process.terminate()
        for process in running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        return {name: process.returncode for name, process in running.items()}

    def _is_healthy(self, name: str) -> bool:
        """Whether the container's health check would pass, asked the cheap way until it might."""
        assert self.processes[name].poll() is None, self._log(name).read_text()
        if not answers(f"{self.url(name)}/readyz"):
            return False
        _, *probe = self._services[name]["healthcheck"]["test"]
        done = subprocess.run([sys.executable, *probe[1:]], env=self._environment(name), timeout=10)
        return done.returncode == 0

    def _environment(self, name: str) -> dict[str, str]:
        told = environment_of(self._services[name], self._ports, self._own_ports.get(name), self._secrets)
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | told

    def _start(self, name: str) -> None:
        self._run(name, command_of(self._services[name]), self._environment(name))

    def _start_mailbox(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "MAILBOX_PORT": self.page.rpartition(":")[2],
            "MAILBOX_SMTP_PORT": str(self._ports["mailpit"]),
            "MAILBOX_FOLDER": str(self._folder / "mail"),
        }
        self._run("mailpit", [sys.executable, "-m", "lab.mailbox"], environment)

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with self._log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=dict(environment),
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@contextmanager
def compose_system(folder: Path, postgres_server: str) -> Iterator[ComposeSystem]:
    """The started system, on databases made as PostgreSQL's container makes them; nothing is left of it."""
    secrets = make_secrets(folder)
    with ExitStack() as stack:
        stack.enter_context(_databases(postgres_server, secrets))
        base = stack.enter_context(port_base())
        system = ComposeSystem(folder, base, secrets)
        stack.callback(system.end)
        system.migrate()
        system.start()
        yield system


@contextmanager
def _databases(postgres_server: str, secrets: Path) -> Iterator[None]:
    told = psycopg.conninfo.conninfo_to_dict(postgres_server)
    query = f"host={told['host']}" + (f"&port={told['port']}" if "port" in told else "")
    statements = [
        line for line in (ROOT / "deploy" / "create_databases.sql").read_text().splitlines() if line
    ]
    creating = [line for line in statements if not line.startswith("--")]
    names = [path.name.removesuffix("_database_url") for path in secrets.glob("*_database_url")]
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        for statement in creating:
            admin.execute(statement.encode())
    try:
        for name in names:
            url = f"postgresql+psycopg://{told['user']}@/{name}?{query}"
            (secrets / f"{name}_database_url").write_text(url)
        yield
    finally:
        with psycopg.connect(postgres_server, autocommit=True) as admin:
            for name in names:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def answers(url: str) -> bool:
    """Whether it answers 200."""
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def eventually(probe: Callable[[], Any], within_s: float, what: str) -> Any:
    """The first true value of `probe`; fails after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if value := probe():
            return value
        time.sleep(POLL_S)
    raise AssertionError(f"not within {within_s:g} s: {what}")
