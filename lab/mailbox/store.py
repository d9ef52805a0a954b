"""Messages as files, synced before they count as accepted, and bounded: the oldest make room.

A file is the message as it came, behind one header line of ours with the envelope and what the list shows,
so that a start reads one line of each file and nothing else needs to be kept.
"""

import contextlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from pathlib import Path

from uuid_utils import uuid7

ENVELOPE = b"X-Mailbox-Envelope: "
SUFFIX = ".eml"
DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the list shows of a message; `size` is the file's, in bytes."""

    id: str
    message_id: str
    sender: str
    to: tuple[str, ...]
    subject: str
    received_at: str
    size: int = 0


class MailStore:
    """The messages of one folder, the oldest dropped beyond `max_messages` or `max_bytes`.

    Every method blocks on the disk and may be called from any thread.
    """

    def __init__(self, folder: Path, max_messages: int, max_bytes: int) -> None:
        self._folder = folder
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the folder and read what is in it; a message that was never accepted is removed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for draft in self._folder.glob(f"*{DRAFT}"):
            draft.unlink()
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # somebody else's file
                self._enter(_read_entry(path))
        self._drop_oldest()

    def add(self, sender: str, to: list[str], content: bytes) -> Entry:
        """Keep a message: once this returns it is on disk. Raises `OSError` where the disk refuses."""
        message_id, subject = _describe(content)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry = Entry(str(uuid7()), message_id, _clean(sender), tuple(map(_clean, to)), subject, now)
        told = {key: value for key, value in asdict(entry).items() if key not in ("id", "size")}
        text = ENVELOPE + json.dumps(told).encode() + b"\r\n" + content
        with self._lock:
            self._write(entry.id, text)
            self._enter(Entry(**told | {"id": entry.id, "to": entry.to, "size": len(text)}))
            self._drop_oldest()
        return entry

    def newest(self, limit: int, to: str | None = None, order: str | None = None) -> tuple[int, list[Entry]]:
        """How many messages match, and the newest of them: to an address, about an order (by Message-ID)."""
        with self._lock:
            entries = list(reversed(self._entries.values()))
        if to is not None:
            entries = [entry for entry in entries if to.lower() in map(str.lower, entry.to)]
        if order is not None:
            entries = [entry for entry in entries if order in entry.message_id]
        return len(entries), entries[:limit]

    def read(self, key: str) -> tuple[Entry, EmailMessage] | None:
        """One message, parsed; None where it is unknown, or was dropped."""
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            return None
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        _, _, message = content.partition(b"\r\n")
        return entry, message_from_bytes(message, policy=policy.default)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{SUFFIX}"

    def _write(self, key: str, text: bytes) -> None:
        draft = self._folder / f"{key}{DRAFT}"
        try:
            with draft.open("xb") as target:
                target.write(text)
                target.flush()
                os.fsync(target.fileno())
            draft.rename(self._path(key))
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)

    def _enter(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._bytes += entry.size

    def _drop_oldest(self) -> None:
        while self._entries and (len(self._entries) > self._max_messages or self._bytes > self._max_bytes):
            key, entry = self._entries.popitem(last=False)
            self._bytes -= entry.size
            self._path(key).unlink(missing_ok=True)


def text_of(message: EmailMessage, kind: str) -> str | None:
    """The message's `plain` or `html` part as text, None where it has none; bad bytes are replaced."""
    part = message.get_body(preferencelist=(kind,))
    if part is None:
        return None
    try:
        return str(part.get_content())
    except (LookupError, ValueError):  # a charset that nobody knows
        payload = part.get_payload(decode=True)
        return payload.decode(errors="replace") if isinstance(payload, bytes) else ""


def headers_of(message: EmailMessage) -> Iterator[tuple[str, str]]:
    """The message's headers, decoded; what cannot be decoded is shown as it came."""
    for name, value in message.raw_items():
        try:
            shown = str(message.policy.header_fetch_parse(name, value))
        except (MessageError, ValueError, LookupError, AttributeError, TypeError):  # the parser has gaps
            shown = str(value)
        yield _clean(name), _clean(shown)


def _clean(text: str) -> str:
    """The text without what cannot be written as UTF-8: bytes that were no text come as lone surrogates."""
    return text.encode(errors="replace").decode()


def _describe(content: bytes) -> tuple[str, str]:
    headers = BytesHeaderParser(policy=policy.default).parsebytes(content.partition(b"\r\n\r\n")[0])
    told = {name.lower(): value for name, value in headers_of(headers)}
    return told.get("message-id", "").strip()[:998], told.get("subject", "")[:998]


def _read_entry(path: Path) -> Entry:
    with path.open("rb") as source:
        line = source.readline(64 * 1024)
    told = json.loads(line.removeprefix(ENVELOPE))
    return Entry(**told | {"id": path.stem, "to": tuple(told["to"]), "size": path.stat().st_size})


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
