"""Where one running system is: its services, ports, data folder, broker and secrets.

`duet up` decides these and every client command finds them again by `--port-base` or `--data`. Services are
discovered from their `service.toml`, so that a new one needs no change here. It refuses to guess secrets:
where there are none, it says what to do.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lab.errors import LabError

HOST = "127.0.0.1"
DEFAULT_PORT_BASE = 8000
DEFAULT_DATA = Path(".duet")
BROKER_OFFSET = 22
MONITORING_OFFSET = 23
CONTROL_OFFSET = 24
SMTP_OFFSET = 25
MAILBOX_OFFSET = 26
HIGHEST_PORT_BASE = 65535 - MAILBOX_OFFSET
CONDUCTOR = "checkout"
MAILBOX = "mailbox"
BROKER = "broker"
OPERATOR = "operator"
SUPERVISOR = "supervisor.json"
OFFSETS = {BROKER: BROKER_OFFSET, MAILBOX: MAILBOX_OFFSET}

Mail = Literal["smtp", "null"]  # into the embedded mailbox, or recorded only

PortBase = Annotated[
    int | None,
    typer.Option(
        "--port-base",
        envvar="DUET_PORT_BASE",
        min=1,
        max=HIGHEST_PORT_BASE,
        help=f"Port of the checkout service, which the others follow (default: {DEFAULT_PORT_BASE}).",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="DUET_DATA",
        help="Folder of tokens, databases and mail (default: the one noted for the port base, or .duet).",
    ),
]


@dataclass(frozen=True)
class Service:
    """One service as its `service.toml` tells of it; `port_offset` counts from the port base.

    `participant`: it takes part in the choreography, by its name. `calls`: the services whose URLs and tokens
    it is told; None: checkout is told all others', everybody else none.
    """

    name: str
    package: str
    port_offset: int
    participant: bool = False
    calls: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Tokens:
    """The operator's token, and by service name the token with which the conductor calls it."""

    operator: str
    services: Mapping[str, str]

    def conductor(self, name: str) -> str:
        """The conductor's token for the service `name`; raise `LabError` where there is none."""
        if name not in self.services:
            raise LabError(f"tokens.json holds no token for {name}: start the system again with `duet up`")
        return self.services[name]


def project_root() -> Path:
    """The folder whose top-level packages are the services: `DUET_ROOT` (a team's variant), or our own."""
    chosen = os.environ.get("DUET_ROOT")
    return Path(chosen).resolve() if chosen else Path(__file__).resolve().parent.parent


def discover_services(root: Path | None = None) -> tuple[Service, ...]:
    """Every top-level package of `root` with a `service.toml`, checkout first, then by port.

    Raises `LabError` where a file is no description of a service, or two want one port.
    """
    found = [_read_service(path) for path in sorted((root or project_root()).glob("*/service.toml"))]
    for service in found:
        rivals = [other.name for other in found if other.port_offset == service.port_offset]
        if len(rivals) > 1:
            raise LabError(f"services {' and '.join(rivals)} want the same port")
    return tuple(sorted(found, key=lambda service: (service.name != CONDUCTOR, service.port_offset)))


@dataclass(frozen=True)
class System:
    """One system: where its data are and at which ports it listens, on loopback.

    `nats_url` is a broker of somebody else's; without it the system has one of its own.
    """

    data: Path
    port_base: int = DEFAULT_PORT_BASE
    services: tuple[Service, ...] = field(default_factory=discover_services)
    nats_url: str | None = None

    @classmethod
    def locate(cls, port_base: int | None = None, data: Path | None = None) -> "System":
        """The system that the options `--port-base` and `--data` mean.

        A folder that is given is used, with the port base of the last `duet up` on it; a port base alone
        leads to the folder that `duet up` noted for it; else `.duet`. The broker is the last `duet up`'s.
        """
        folder = _noted_folder(port_base or DEFAULT_PORT_BASE) if data is None else data.resolve()
        last = _read_object(folder / SUPERVISOR)
        base = port_base or (last.get("port_base") if data is not None else None) or DEFAULT_PORT_BASE
        nats_url = last.get("nats_url")
        return cls(folder, int(base), nats_url=nats_url if isinstance(nats_url, str) else None)

    def service(self, name: str) -> Service:
        """The service called `name`; raise `LabError` where there is none."""
        for service in self.services:
            if service.name == name:
                return service
        raise LabError(f"there is no service {name}: it is one of {', '.join(s.name for s in self.services)}")

    def called_by(self, service: Service) -> tuple[Service, ...]:
        """Whom a service calls; raise `LabError` where its `service.toml` names one that there is not."""
        if service.calls is not None:
            return tuple(self.service(name) for name in service.calls)
        return tuple(other for other in self.services if service.name == CONDUCTOR != other.name)

    def port(self, name: str) -> int:
        """The HTTP port of a service or of the mailbox's page, or the broker's own."""
        offset = OFFSETS.get(name)
        return self.port_base + (self.service(name).port_offset if offset is None else offset)

    def url(self, name: str) -> str:
        """The base URL of a service or of the mailbox's page, without a slash at its end."""
        return f"http://{HOST}:{self.port(name)}"

    @property
    def broker_url(self) -> str:
        """Where the broker takes clients."""
        return self.nats_url or f"nats://{HOST}:{self.port(BROKER)}"

    @property
    def monitoring_port(self) -> int:
        """Where the broker of the system's own tells how it is, over HTTP."""
        return self.port_base + MONITORING_OFFSET

    @property
    def control_port(self) -> int:
        """Where the supervisor takes commands."""
        return self.port_base + CONTROL_OFFSET

    @property
    def smtp_port(self) -> int:
        """Where the mailbox takes mail."""
        return self.port_base + SMTP_OFFSET

    @property
    def accepted_file(self) -> Path:
        """The ids of accepted orders, one a line, synced: what the audit holds the system to."""
        return self.data / "accepted.log"

    @property
    def tokens_file(self) -> Path:
        """The tokens, readable by their owner only."""
        return self.data / "tokens.json"

    @property
    def mail_folder(self) -> Path:
        """Where the mailbox keeps messages."""
        return self.data / "mail"

    @property
    def broker_folder(self) -> Path:
        """Where the broker keeps its streams."""
        return self.data / "broker"

    @property
    def broker_config_file(self) -> Path:
        """The broker's configuration, passwords included, readable by its owner only."""
        return self.data / "broker.conf"

    @property
    def broker_passwords_file(self) -> Path:
        """The passwords of the broker's users by name, readable by their owner only."""
        return self.data / "broker.json"

    @property
    def supervisor_file(self) -> Path:
        """Port base, broker, and the processes that the supervisor started: whom to end if it is killed."""
        return self.data / SUPERVISOR

    def database_file(self, name: str) -> Path:
        """The SQLite file of a service."""
        return self.data / f"{name}.db"

    def log_file(self, name: str) -> Path:
        """The log of a process."""
        return self.data / "logs" / f"{name}.log"

    def tokens(self) -> Tokens:
        """Read the tokens; raise `LabError`, saying what to do, where they cannot be read."""
        services = self._secrets(self.tokens_file, "tokens")
        return Tokens(services.pop(OPERATOR), services)

    def broker_passwords(self) -> dict[str, str]:
        """The passwords of the broker's users; raise `LabError` where they cannot be read."""
        return self._secrets(self.broker_passwords_file, "passwords of the broker")

    def _secrets(self, file: Path, what: str) -> dict[str, str]:
        """Secrets by name, the operator's among them."""
        try:
            parsed = {str(name): str(secret) for name, secret in json.loads(file.read_text()).items()}
        except FileNotFoundError:
            raise LabError(
                f"no {what} in {self.data}: start the system with `duet up --port-base {self.port_base}`, "
                "or say where its data are with --data"
            ) from None
        except (OSError, ValueError, AttributeError) as error:
            raise LabError(f"cannot read the {what} in {file}: {error!r}") from error
        if OPERATOR not in parsed:
            raise LabError(f"cannot read the {what} in {file}: the operator's is missing")
        return parsed


def note_file(port_base: int) -> Path:
    """The note by which a port base alone leads to a data folder, in the user's state folder."""
    stated = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = stated if stated.is_absolute() else Path.home() / ".local" / "state"
    return state / "duet" / f"{port_base}.json"


def _read_service(path: Path) -> Service:
    try:
        told = tomllib.loads(path.read_text())
        name, port = told["name"], told["port"]
        participant = bool(told.get("broker", {}).get("participant", False))
        calls = told.get("calls")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LabError(f"{path} does not describe a service (name, port): {error!r}") from error
    offset = port - DEFAULT_PORT_BASE if isinstance(port, int) else -1
    if not (isinstance(name, str) and name.isidentifier() and 0 <= offset < BROKER_OFFSET):
        raise LabError(f"{path}: name must be a word, and port from 8000 to {8000 + BROKER_OFFSET - 1}")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(one, str) for one in calls)):
        raise LabError(f"{path}: calls is a list of services' names")
    return Service(name, path.parent.name, offset, participant, None if calls is None else tuple(calls))


def _noted_folder(port_base: int) -> Path:
    noted = _read_object(note_file(port_base)).get("data")
    return Path(noted) if isinstance(noted, str) else DEFAULT_DATA.resolve()


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no such file or it holds something else."""
    try:
        parsed = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
