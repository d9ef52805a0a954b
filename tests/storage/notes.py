"""A table that means nothing, to put the storage through its paces on both engines."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, Text, select

from servicekit.db import insert_for

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

Note = tuple[str, int]


def create(connection: Connection) -> None:
    metadata.create_all(connection)


def add(connection: Connection, items: Sequence[Note]) -> list[str]:
    """Add notes; a name that is there already is the item's own error. The names, in order."""
    connection.execute(notes.insert(), [{"name": name, "number": number} for name, number in items])
    return [name for name, _ in items]


def keep(connection: Connection, items: Sequence[Note]) -> list[str]:
    """Add notes, or find them there: "new" or "there" for each, in order."""
    known = names(connection)
    rows = [{"name": name, "number": number} for name, number in items]
    connection.execute(insert_for(connection, notes).on_conflict_do_nothing(), rows)
    return ["there" if name in known else "new" for name, _ in items]


def names(connection: Connection) -> set[str]:
    return set(connection.execute(select(notes.c.name)).scalars())
