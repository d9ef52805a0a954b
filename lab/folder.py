"""The data folder of `duet up`: held by one supervisor at a time, with its secrets, emptied by `--fresh`.

It deletes only what a `duet up` makes, and refuses to empty a folder that holds no sign of one.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lab.errors import LabError
from lab.system import CONDUCTOR, OPERATOR, System, note_file

LOCK = "supervisor.lock"
FOLDERS = ("mail", "logs", "broker")


@contextlib.contextmanager
def hold(system: System) -> Iterator[None]:
    """Make the folder and hold it; raise `LabError` where another supervisor does, or it cannot be made.

    The lock ends with this process however it ends, since no child inherits it.
    """
    try:
        system.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(system.data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LabError(f"cannot use {system.data} as data folder: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise LabError(f"another `duet up` runs on {system.data}: stop it, or give another --data") from None
    try:
        yield
    finally:
        os.close(lock)


def refuse_strange_folder(system: System) -> None:
    """Raise `LabError` where `--fresh` would delete from a folder that no `duet up` has made."""
    if not system.data.exists():
        return
    if not system.data.is_dir():
        raise LabError(f"{system.data} is no folder")
    strange = sorted(path.name for path in system.data.iterdir() if not _is_ours(system, path))
    if strange and not _holds_tokens(system):
        raise LabError(f"{system.data} does not look like a data folder of duet: --fresh does not touch it")


def empty(system: System) -> None:
    """Delete databases, streams, mail, logs, secrets and the list of accepted orders; leave all else."""
    ours = [path for path in system.data.iterdir() if _is_ours(system, path) and path.name != LOCK]
    for path in sorted(ours, key=lambda path: path == system.tokens_file):  # the sign goes last
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def make_tokens(system: System) -> None:
    """Make the tokens that are not there yet, in a file that only its owner reads."""
    known: dict[str, str] = {}
    if system.tokens_file.exists():
        tokens = system.tokens()
        known = {OPERATOR: tokens.operator, **tokens.services}
    others = (service.name for service in system.services if service.name != CONDUCTOR)
    _add_secrets(system.tokens_file, known, (OPERATOR, *others))


def make_broker_passwords(system: System, users: Iterable[str]) -> None:
    """Make the passwords of the broker's users that are not there yet, as the tokens."""
    known = system.broker_passwords() if system.broker_passwords_file.exists() else {}
    _add_secrets(system.broker_passwords_file, known, (OPERATOR, *users))


@contextlib.contextmanager
def noted(system: System) -> Iterator[None]:
    """Leave the note by which a port base alone leads to this folder, and take it away afterwards."""
    note = note_file(system.port_base)
    told = json.dumps({"data": str(system.data), "port_base": system.port_base})
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.parent.chmod(0o700)
        write_private(note, told)
    except OSError as error:
        raise LabError(f"cannot leave the note {note}: {error} (XDG_STATE_HOME chooses its place)") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if note.read_text() == told:
                note.unlink()


def write_private(file: Path, text: str) -> None:
    """Write a whole file that never was readable by others, not even while it was written."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    draft.replace(file)


def _add_secrets(file: Path, known: Mapping[str, str], wanted: Iterable[str]) -> None:
    missing = [name for name in wanted if name not in known]
    if missing:
        made = {name: secrets.token_urlsafe(32) for name in missing}
        write_private(file, json.dumps({**known, **made}, indent=1))


def _is_ours(system: System, path: Path) -> bool:
    named = {
        LOCK,
        system.tokens_file.name,
        system.broker_config_file.name,
        system.broker_passwords_file.name,
        system.accepted_file.name,
        "repaired.log",
        system.supervisor_file.name,
        system.supervisor_file.with_suffix(".tmp").name,
        *FOLDERS,
    }
    databases = tuple(system.database_file(service.name).name for service in system.services)
    return path.name in named or path.name.startswith(databases)  # with SQLite's -wal, -shm, locks


def _holds_tokens(system: System) -> bool:
    with contextlib.suppress(LabError):
        return bool(system.tokens().operator)
    return False
