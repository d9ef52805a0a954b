"""Who takes part in choreographed orders: learnt from the broker, kept for good in checkout's own database.

To take part is to have a durable consumer whose metadata says so, by the name that its credentials pin.
Refuses to conclude anything from an absence (a wiped broker has no consumers): only an operator retires a
name, and a retired one joins again only by a durable newer than the one it had.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from checkout.journal import Journal
from checkout.orders import Progress, StepStatus
from checkout.tables import participants
from servicekit.bus import Durable
from servicekit.db import Database, insert_for

log = logging.getLogger("checkout.participants")

NAME = r"^[A-Za-z0-9_-]{1,64}$"
MAX_PARTICIPANTS = 100
OPT_IN = ("duet.outcome", "true")


class UnknownParticipantError(Exception):
    """Nobody of that name has ever taken part."""


@dataclass(frozen=True)
class Participant:
    """One name. `durable_created` is the broker's stamp of the last durable it was seen with."""

    name: str
    joined_at: datetime
    durable_created: str
    retired_at: datetime | None = None


class Participants:
    """Everybody who has ever taken part; the database is the truth, this a copy as of the last call."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._everybody: Mapping[str, Participant] = {}
        self._ignored: frozenset[str] = frozenset()
        # One at a time, so that no older copy replaces a newer one.
        self._turn = asyncio.Lock()

    def everybody(self) -> list[Participant]:
        """All of them, the retired included, by name."""
        return [self._everybody[name] for name in sorted(self._everybody)]

    def known(self) -> tuple[str, ...]:
        """The names that take part now, sorted."""
        return tuple(each.name for each in self.everybody() if each.retired_at is None)

    def retired(self) -> frozenset[str]:
        """The names that have retired."""
        return frozenset(self._everybody) - frozenset(self.known())

    def ever(self) -> frozenset[str]:
        """All names that have joined once."""
        return frozenset(self._everybody)

    async def load(self) -> None:
        """Take over what the database says: another replica may have learnt more."""
        async with self._turn:
            self._everybody = await self._database.read(_all)

    async def observe(self, durables: Sequence[Durable]) -> bool:
        """Learn from the database, and from the consumers that the broker has now.

        Returns whether somebody has joined. Raises StorageUnavailableError.
        """
        key, value = OPT_IN
        seen = {each.name: each.created for each in durables if each.metadata.get(key) == value}
        fit = {name: created for name, created in seen.items() if re.fullmatch(NAME, name)}
        now = datetime.now(UTC)
        async with self._turn:
            before = self.known()
            # Another replica may have learnt, or retired, somebody.
            self._everybody = await self._database.read(_all)
            if joined(self._everybody, fit, now):
                self._everybody = await self._database.write(lambda c: _join(c, fit, now))
            ignored = frozenset(seen) - frozenset(self._everybody)
        if news := sorted(ignored - self._ignored):
            log.warning("unfit to take part, or too many", extra={"names": [name[:64] for name in news[:5]]})
        self._ignored = ignored
        return not set(self.known()) <= set(before)

    async def awaited_by(self, progress: Progress) -> Progress:
        """An order that awaits nobody yet awaits all who take part now, and no order one who has retired."""
        if not progress.awaits_anybody:
            return await self._journal.await_participants(progress, self.known())
        pending = {step.name for step in progress.steps.values() if step.status is StepStatus.PENDING}
        gone = pending & self.retired()
        return await self._journal.release(progress, gone) if gone else progress

    async def retire(self, name: str) -> Participant:
        """Nobody awaits this name any more, nor do the orders that do. Repeating it changes nothing.

        Raises UnknownParticipantError, StorageUnavailableError.
        """
        now = datetime.now(UTC)
        async with self._turn:
            self._everybody = await self._database.write(lambda c: _retire(c, name, now))
        if name not in self._everybody:
            raise UnknownParticipantError(name)
        count = await self._journal.retire(name)
        log.info("participant retired", extra={"participant": name, "count": count})
        return self._everybody[name]


def joined(
    known: Mapping[str, Participant], durables: Mapping[str, str], at: datetime
) -> dict[str, Participant]:
    """What is new about those who have these durables (name: created): by name, who joins or is changed."""
    news: dict[str, Participant] = {}
    for name in sorted(durables):
        created, old = durables[name], known.get(name)
        if old is None:
            if len(known) + len(news) < MAX_PARTICIPANTS:
                news[name] = Participant(name, at, created)
        elif old.retired_at is None:
            if created != old.durable_created:
                news[name] = replace(old, durable_created=created)
        elif created > old.durable_created:
            news[name] = Participant(name, at, created)
    return news


def _all(connection: Connection, *, lock: bool = False) -> dict[str, Participant]:
    query = select(participants).order_by(participants.c.name)
    rows = connection.execute(query.with_for_update() if lock else query)
    return {row.name: Participant(**row._mapping) for row in rows}


def _join(connection: Connection, durables: Mapping[str, str], at: datetime) -> dict[str, Participant]:
    known = _all(connection, lock=True)
    news = joined(known, durables, at)
    if new := [asdict(each) for name, each in news.items() if name not in known]:
        # Another replica may just have learnt the same.
        connection.execute(insert_for(connection, participants).on_conflict_do_nothing(), new)
    for changed in (each for name, each in news.items() if name in known):
        connection.execute(
            update(participants).where(participants.c.name == changed.name).values(**asdict(changed))
        )
    return _all(connection)


def _retire(connection: Connection, name: str, at: datetime) -> dict[str, Participant]:
    active = update(participants).where(participants.c.name == name, participants.c.retired_at.is_(None))
    connection.execute(active.values(retired_at=at))
    return _all(connection)
