"""The lab's own book: which order ids a naive arm made for what a client meant (its Idempotency-Key).

The arm itself has no use for it. A line is `ORDER_ID KEY`, where the key is the rest of the line. It is
appended by one write before anything is done for the order, so that it outlives a killed process; no sync.
"""

import os
from pathlib import Path


class Book:
    """Appends to the file, which it opens once and holds until the process ends."""

    def __init__(self, file: Path) -> None:
        self._descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, order_id: str, key: str) -> None:
        """Note one order; the key is empty where the client gave none. Raises `OSError`."""
        os.write(self._descriptor, f"{order_id} {key}\n".encode())


def open_book(file: str | None) -> Book | None:
    """The book that a setting names, if it names one."""
    return Book(Path(file)) if file else None


def read_book(file: Path) -> dict[str, list[str]]:
    """By Idempotency-Key the order ids that were made for it, in order; nothing where there is no file.

    Orders without a key, and a last line that is not complete, are left out.
    """
    if not file.exists():
        return {}
    made: dict[str, list[str]] = {}
    complete, _, _ = file.read_text().rpartition("\n")
    for line in complete.split("\n"):
        order_id, _, key = line.partition(" ")
        if key:
            made.setdefault(key, []).append(order_id)
    return made
