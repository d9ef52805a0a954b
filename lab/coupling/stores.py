"""What is kept where: the databases, the mail, the broker's files and the logs, searched for facts.

Files are searched as bytes, a database's write-ahead log too, so that what was deleted but not yet
overwritten counts as kept; numbers, which SQLite does not keep as text, are looked for row by row. What is
compressed or encrypted is not seen. It refuses a store that it cannot read, and knows none elsewhere (on
PostgreSQL, say).
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.coupling.markers import FACTS, MEMBERSHIP, Marked
from lab.errors import FAILED, LabError
from lab.system import System

CHUNK_BYTES = 4 << 20
OVERLAP_BYTES = 64 << 10  # longer than a record of a marked order
TIMEOUT_S = 10.0
MEMBER_COLUMN = "member"


@dataclass(frozen=True, order=True)
class Held:
    """A fact that a store keeps, of how many of the marked orders."""

    store: str
    fact: str
    orders: int

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def stores_of(system: System) -> dict[str, list[Path]]:
    """By a store's name, its files that are there now: `<service> database`, `mailbox`, `broker`, `logs`."""
    stores = {
        f"{service.name} database": _database(system.database_file(service.name))
        for service in system.services
    }
    folders = {"mailbox": system.mail_folder, "broker": system.broker_folder, "logs": system.data / "logs"}
    for name, folder in folders.items():
        stores[name] = sorted(path for path in folder.rglob("*") if path.is_file())
    return {name: files for name, files in stores.items() if files}


def held(stores: Mapping[str, Sequence[Path]], orders: Sequence[Marked]) -> list[Held]:
    """Which facts of the marked orders each store keeps. Raises `LabError` where one cannot be read."""
    found = []
    for store, files in stores.items():
        seen: dict[str, set[int]] = {fact: set() for fact in FACTS}
        for file in files:
            for number, fact in _search(file, orders):
                seen[fact].add(number)
        found += [Held(store, fact, len(numbers)) for fact, numbers in seen.items() if numbers]
    return found


def _search(file: Path, orders: Sequence[Marked]) -> Iterator[tuple[int, str]]:
    try:
        for piece in _pieces(file):
            for number, order in enumerate(orders):
                yield from ((number, fact) for fact in order.facts_in(piece))
        if file.suffix == ".db":
            yield from _rows(file, orders)
    except FileNotFoundError:  # the broker and the mailbox drop files while they work
        return
    except (OSError, sqlite3.Error) as error:
        raise LabError(f"cannot search {file}: {error}", FAILED) from error


def _pieces(file: Path) -> Iterator[bytes]:
    """A file in pieces that overlap, so that none cuts what another has not whole."""
    with file.open("rb") as source:
        kept = b""
        while piece := source.read(CHUNK_BYTES):
            yield kept + piece
            kept = (kept + piece)[-OVERLAP_BYTES:]


def _rows(file: Path, orders: Sequence[Marked]) -> Iterator[tuple[int, str]]:
    """Numbers, and columns of membership, in the rows of the orders; the connection cannot write."""
    wanted = {
        amount: (number, fact)
        for number, order in enumerate(orders)
        for fact, amount in order.numbers.items()
    }
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            quoted = name.replace('"', '""')
            rows = connection.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - a name of its own, quoted
            columns = [column[0] for column in rows.description]
            for row in rows:
                hits = [wanted[value] for value in row if isinstance(value, int) and value in wanted]
                yield from hits
                if hits and any(MEMBER_COLUMN in column for column in columns):
                    yield hits[0][0], MEMBERSHIP


def _database(file: Path) -> list[Path]:
    return [path for path in (file, file.with_name(f"{file.name}-wal")) if path.is_file()]
