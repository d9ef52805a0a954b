"""What a participant has done with each event, and what it refused: two tables of its own database.

An outcome is stored with the effect, once, and never changes: whoever hears the event again is answered from
here. A refusal is counted until it succeeds; `retry` says up to which request for a retry.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, case, select

from servicekit.db import Instant, insert_for

metadata = MetaData()

outcomes = Table(
    "outcomes",
    metadata,
    Column("key", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("result", Text),
    Column("reason", Text),
    Column("stored_at", Instant, nullable=False),
)
refusals = Table(
    "refusals",
    metadata,
    Column("key", Text, primary_key=True),
    Column("retry", Integer, nullable=False),
    Column("errors", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("refused_at", Instant, nullable=False),
)

SUCCEEDED, SKIPPED, FAILED = "succeeded", "skipped", "failed"


@dataclass(frozen=True)
class Outcome:
    """How an event's handling ended, after how many attempts."""

    key: str
    status: str
    attempts: int
    result: Mapping[str, Any] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Refused:
    """How often an event was refused since somebody last asked for a retry, and why last."""

    key: str
    retry: int
    errors: int
    reason: str


def stored(connection: Connection, keys: Collection[str]) -> dict[str, Outcome]:
    """The outcomes of these events, as far as there are any."""
    rows = connection.execute(select(outcomes).where(outcomes.c.key.in_(keys)))
    return {
        row.key: Outcome(
            row.key, row.status, row.attempts, orjson.loads(row.result) if row.result else None, row.reason
        )
        for row in rows
    }


def refused(connection: Connection, keys: Collection[str]) -> dict[str, Refused]:
    """The refusals of these events, as far as there are any."""
    rows = connection.execute(select(refusals).where(refusals.c.key.in_(keys)))
    return {row.key: Refused(row.key, row.retry, row.errors, row.reason) for row in rows}


def store(connection: Connection, new: Sequence[Outcome]) -> None:
    """Store outcomes; what is there already stays. Their refusals are over."""
    now = datetime.now(UTC)
    rows = [
        {
            "key": outcome.key,
            "status": outcome.status,
            "attempts": outcome.attempts,
            "result": None if outcome.result is None else orjson.dumps(dict(outcome.result)).decode(),
            "reason": outcome.reason,
            "stored_at": now,
        }
        # In sorted order, so that two transactions never wait for each other.
        for outcome in sorted(new, key=lambda outcome: outcome.key)
    ]
    connection.execute(insert_for(connection, outcomes).on_conflict_do_nothing(), rows)


def forget_refusals(connection: Connection, keys: Collection[str]) -> None:
    """They succeeded in the end."""
    if keys:
        connection.execute(refusals.delete().where(refusals.c.key.in_(keys)))


def count_refusal(connection: Connection, key: str, retry: int, reason: str) -> Refused:
    """One more refusal, and what that makes; a later retry than the last begins anew."""
    first = insert_for(connection, refusals).values(
        key=key, retry=retry, errors=1, reason=reason, refused_at=datetime.now(UTC)
    )
    new = first.excluded
    again = first.on_conflict_do_update(
        index_elements=["key"],
        set_={
            "errors": case((new.retry > refusals.c.retry, 1), else_=refusals.c.errors + 1),
            "retry": case((new.retry > refusals.c.retry, new.retry), else_=refusals.c.retry),
            "reason": new.reason,
            "refused_at": new.refused_at,
        },
    )
    row = connection.execute(again.returning(refusals.c.retry, refusals.c.errors)).one()
    return Refused(key, row.retry, row.errors, reason)
