"""One commit of the journal: whatever has gathered of accepted orders, their changes, and ended passes."""

from collections.abc import Sequence

from sqlalchemy import Connection

from checkout import leases, store
from checkout.leases import End
from checkout.orders import Progress
from checkout.store import Accepted, Change, Placement
from servicekit.crashpoints import reach

Entry = Placement | Change | End
Written = Accepted | Progress | None


def write(connection: Connection, entries: Sequence[Entry]) -> list[Written]:
    """Write entries, within a transaction of the caller's that may be run again; what came of each, in order.

    Changes of one order are written in the order in which they are given. Raises KeyError for a change of an
    order that is not in the journal.
    """
    results: list[Written] = [None] * len(entries)
    placements = [(at, entry) for at, entry in enumerate(entries) if isinstance(entry, Placement)]
    changes = [(at, entry) for at, entry in enumerate(entries) if isinstance(entry, Change)]
    ends = [entry for entry in entries if isinstance(entry, End)]
    if placements:
        accepted = store.accept(connection, [entry for _, entry in placements])
        for (at, _), each in zip(placements, accepted, strict=True):
            results[at] = each
        reach("checkout.before-accept-commit")
    if changes and ends and connection.dialect.name == "postgresql":
        # Each kind by itself takes its rows in one sequence, but not both together.
        store.lock(connection, {entry.order_id for _, entry in changes} | {end.order_id for end in ends})
    if changes:
        changed = store.change(connection, [entry for _, entry in changes])
        for (at, _), progress in zip(changes, changed, strict=True):
            results[at] = progress
        reach("checkout.before-outcome-commit")
    if ends:
        leases.end_passes(connection, ends)
    return results
