"""What a nats-server is told: its users, by the rights that each `service.toml` asks for, and its bounds.

`duet up` and `deploy/make_secrets.py` (by a plain `python3`) share it, hence the standard library alone.
It refuses a user without a password or without subjects: what is not listed is denied.

Permissions are checked on what a client publishes, not on the reply subject that it names there: who may pull
could have the server's answer sent to `$JS.API.STREAM.DELETE.ORDERS`, and the server would obey itself.
So each participant has an account of its own, which imports the listed subjects and holds nothing else.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPERATOR = "operator"
STREAMS_ACCOUNT = "DUET"
DOMAIN = "duet"  # participants reach the streams' API at `$JS.duet.API`: `$JS.API` is their own account's
API = "$JS.API."
IMPORTED_API = f"$JS.{DOMAIN}.API."
PULL = f"{API}CONSUMER.MSG.NEXT."
PULL_ANSWERS = "15s"  # how long a pull may be answered; no client of ours waits as long
MAX_PAYLOAD_BYTES = 1 << 20
MAX_MEMORY_BYTES = 256 << 20
MAX_FILE_BYTES = 16 << 30
MAX_CONNECTIONS = 256


@dataclass(frozen=True)
class BrokerRights:
    """Subjects that a user may publish to and subscribe to; whether it takes part in events."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    participant: bool = False


@dataclass(frozen=True)
class BrokerUser:
    """A user of the broker: its name (the prefix of its inbox is `_INBOX_<name>`), password and rights."""

    name: str
    password: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    participant: bool = False


@dataclass(frozen=True)
class BrokerTls:
    """Files of the server's certificate and key; with `ca`, clients must show a certificate of it, too."""

    cert: str
    key: str
    ca: str | None = None


# Looks after streams, consumers and dead letters; tells neither an event nor an outcome.
OPERATOR_RIGHTS = BrokerRights(publish=(f"{API}>", "$JS.ACK.>"), subscribe=(f"_INBOX_{OPERATOR}.>",))


def read_rights(root: Path) -> dict[str, BrokerRights]:
    """By service name, the rights that the `service.toml` files below `root` ask for.

    A service without a `[broker]` section has none. Raises `ValueError` where a section is malformed.
    """
    found = {}
    for path in sorted(root.glob("*/service.toml")):
        told = tomllib.loads(path.read_text())
        if "broker" in told:
            found[str(told["name"])] = _rights(path, told["broker"])
    return found


def broker_users(rights: Mapping[str, BrokerRights], passwords: Mapping[str, str]) -> tuple[BrokerUser, ...]:
    """A user for each service, and the operator; raise `ValueError` where one has no password."""
    wanted = {**rights, OPERATOR: OPERATOR_RIGHTS}
    if missing := wanted.keys() - {name for name, password in passwords.items() if password}:
        raise ValueError(f"no broker password for {', '.join(sorted(missing))}")
    return tuple(
        BrokerUser(name, passwords[name], right.publish, right.subscribe, right.participant)
        for name, right in wanted.items()
    )


def nats_config(
    users: Sequence[BrokerUser],
    *,
    host: str,
    port: int,
    monitor_port: int,
    store: str,
    tls: BrokerTls | None = None,
    sync_always: bool = True,
) -> str:
    """The server's configuration file, in the JSON that nats-server reads. It holds passwords.

    Monitoring listens on loopback only, since it asks for no password. Every message is on disk before it
    is acknowledged (`sync_interval`); without `sync_always`, which is for measuring only, within two minutes.
    """
    config: dict[str, Any] = {
        "server_name": "duet",
        "listen": f"{host}:{port}",
        "http": f"127.0.0.1:{monitor_port}",
        "max_payload": MAX_PAYLOAD_BYTES,
        "max_connections": MAX_CONNECTIONS,
        "ping_interval": "20s",
        "ping_max": 2,
        "write_deadline": "5s",
        "jetstream": {
            "store_dir": store,
            **({"sync_interval": "always"} if sync_always else {}),
            "max_memory_store": MAX_MEMORY_BYTES,
            "max_file_store": MAX_FILE_BYTES,
        },
        "authorization": {"timeout": 2},
        "accounts": _accounts(users),
    }
    if tls is not None:
        config["tls"] = {"cert_file": tls.cert, "key_file": tls.key, "timeout": 2}
        if tls.ca is not None:
            config["tls"] |= {"ca_file": tls.ca, "verify": True}
    return json.dumps(config, indent=2) + "\n"


def _accounts(users: Sequence[BrokerUser]) -> dict[str, Any]:
    """The account of the streams, and one for each participant that imports what it may publish to."""
    participants = [user for user in users if user.participant]
    streams = {
        "jetstream": "enabled",
        "users": [_user(user, user.publish) for user in users if not user.participant],
        "exports": [_export(user, subject) for user in participants for subject in user.publish],
    }
    return {STREAMS_ACCOUNT: streams} | {
        user.name: {
            "users": [_user(user, [_imported(subject) for subject in user.publish])],
            "imports": [
                {"service": {"account": STREAMS_ACCOUNT, "subject": subject}, "to": _imported(subject)}
                for subject in user.publish
            ],
        }
        for user in participants
    }


def _export(user: BrokerUser, subject: str) -> dict[str, Any]:
    export: dict[str, Any] = {"service": subject, "accounts": [user.name]}
    if subject.startswith(PULL):  # the one request with many answers: a batch of messages
        export |= {"response_type": "stream", "response_threshold": PULL_ANSWERS}
    return export


def _imported(subject: str) -> str:
    """What a subject of the streams' account is called in a participant's account."""
    return IMPORTED_API + subject.removeprefix(API) if subject.startswith(API) else subject


def _user(user: BrokerUser, publish: Sequence[str]) -> dict[str, Any]:
    if not (publish and user.subscribe):
        raise ValueError(f"user {user.name} wants subjects: an empty list would allow every subject")
    permissions = {"publish": {"allow": list(publish)}, "subscribe": {"allow": list(user.subscribe)}}
    return {"user": user.name, "password": user.password, "permissions": permissions}


def _rights(path: Path, section: Any) -> BrokerRights:
    try:
        publish, subscribe = section["publish"], section["subscribe"]
        participant = section.get("participant", False)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: [broker] wants publish and subscribe: {error!r}") from error
    lists_of_subjects = all(
        isinstance(subjects, list) and subjects and all(isinstance(subject, str) for subject in subjects)
        for subjects in (publish, subscribe)
    )
    if not (lists_of_subjects and isinstance(participant, bool)):
        raise ValueError(f"{path}: publish and subscribe are lists of subjects, participant is true or false")
    return BrokerRights(tuple(publish), tuple(subscribe), participant)
