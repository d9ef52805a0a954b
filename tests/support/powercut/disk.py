"""The files of a recorded process as a power cut would have left them, at any moment.

A file holds what its last completed sync covered. Of the writes after it, the disk may have kept none, or any
of them, whole or in sectors: both are modelled. A removal is on disk once any file was synced after it, as on
file systems that journal their metadata in order (ext4, XFS, APFS).
"""

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

HEAD = struct.Struct("=5Q")
SECTOR_BYTES = 512


class Kind(IntEnum):
    """What was done to a file; the numbers are record.c's."""

    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    UNLINK = 4


@dataclass(frozen=True)
class Record:
    """One call, in the order in which they were made; `stamp_ns` is CLOCK_MONOTONIC at its end."""

    stamp_ns: int
    kind: Kind
    path: str
    offset: int
    data: bytes


def read_records(log: Path) -> Iterator[Record]:
    """All whole records of a log."""
    content = log.read_bytes()
    at = 0
    while at + HEAD.size <= len(content):
        stamp_ns, kind, offset, path_length, data_length = HEAD.unpack_from(content, at)
        start = at + HEAD.size
        end = start + path_length + data_length
        if end > len(content):
            return
        path = content[start : start + path_length].decode()
        yield Record(stamp_ns, Kind(kind), path, offset, content[start + path_length : end])
        at = end


@dataclass
class _File:
    synced: bytes | None  # None: it does not exist on disk
    since: list[Record] = field(default_factory=list)


class Disk:
    """What is on disk and what is on its way there: `apply` records one by one, and `cut` at any point."""

    def __init__(self, files: dict[str, bytes]) -> None:
        """`files`: path and content of what was there, and durable, before the recording began."""
        self._files = {path: _File(content) for path, content in files.items()}

    def apply(self, record: Record) -> None:
        """Let one call happen."""
        file = self._files.setdefault(record.path, _File(None))
        if record.kind is not Kind.SYNC:
            file.since.append(record)
            return
        file.synced, file.since = _after(file.synced, file.since), []
        for other in self._files.values():
            if any(one.kind is Kind.UNLINK for one in other.since):
                last = max(number for number, one in enumerate(other.since) if one.kind is Kind.UNLINK)
                other.synced, other.since = None, other.since[last + 1 :]

    def cut(self, chance: random.Random | None = None) -> dict[str, bytes]:
        """The files after a power cut now: without `chance` all that was not synced is lost, else some."""
        left = {}
        for path, file in self._files.items():
            kept = [] if chance is None else _survivors(file.since, chance)
            content = _after(file.synced, kept)
            if content is not None:
                left[path] = content
        return left


def _after(content: bytes | None, records: Sequence[Record]) -> bytes | None:
    changed = None if content is None else bytearray(content)
    for record in records:
        if record.kind is Kind.UNLINK:
            changed = None
            continue
        changed = bytearray() if changed is None else changed
        if record.kind is Kind.TRUNCATE:
            changed[record.offset :] = bytes(max(0, record.offset - len(changed)))
        else:
            end = record.offset + len(record.data)
            changed.extend(bytes(max(0, end - len(changed))))
            changed[record.offset : end] = record.data
    return None if changed is None else bytes(changed)


def _survivors(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """Some of the calls, and of each write some of the sectors, as a disk that reorders keeps them."""
    kept = []
    for record in records:
        if record.kind is not Kind.WRITE:
            kept += [record] if chance.random() < 0.5 else []
            continue
        for start in range(0, len(record.data), SECTOR_BYTES):
            if chance.random() < 0.5:
                sector = record.data[start : start + SECTOR_BYTES]
                kept.append(Record(record.stamp_ns, Kind.WRITE, record.path, record.offset + start, sector))
    return kept
