"""What became of the orders that were placed: how many, in which style, and how long it took.

Two times are told: until checkout answered, by the clock of whoever placed the order, and from acceptance to
completion, by checkout's own clock. It refuses to keep more than the first thousand representations.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lab.ledger import COMPLETED, IN_PROGRESS, NEEDS_ATTENTION

FINAL = (COMPLETED, NEEDS_ATTENTION)
MOST_KEPT = 1000  # representations; of further orders only the counts


@dataclass
class Tally:
    """The accepted orders of one style: counts by final status, ids of the rest, and times in seconds."""

    accepted: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    unfinished: set[str] = field(default_factory=set)
    ack_s: list[float] = field(default_factory=list)
    completion_s: list[float] = field(default_factory=list)

    def finish(self, order: Mapping[str, Any]) -> None:
        """Count an order whose status is final."""
        self.unfinished.discard(order["order_id"])
        self.finished[order["status"]] += 1
        if (took_s := completion_s(order)) is not None:
            self.completion_s.append(took_s)


@dataclass
class Outcome:
    """What became of a plan: `orders` are representations, `styles` a tally for each style that came up."""

    requested: int
    unanswered: int = 0
    refused: int = 0
    retries: int = 0
    replayed: int = 0
    styles: dict[str, Tally] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    worst_lag_s: float = 0.0

    def accept(self, order: dict[str, Any], ack_s: float) -> None:
        """Count an order that was accepted, `ack_s` seconds after it was due to leave."""
        tally = self.styles.setdefault(order["style"], Tally())
        tally.accepted += 1
        tally.ack_s.append(ack_s)
        if len(self.orders) < MOST_KEPT:
            self.orders[order["order_id"]] = order
        if order["status"] == IN_PROGRESS:
            tally.unfinished.add(order["order_id"])
        else:
            tally.finish(order)

    def update(self, order: dict[str, Any]) -> None:
        """Note what an unfinished order has come to since."""
        if order["order_id"] in self.orders:
            self.orders[order["order_id"]] = order
        if order["status"] != IN_PROGRESS:
            self.styles[order["style"]].finish(order)

    @property
    def accepted(self) -> int:
        """How many orders were accepted, in all styles."""
        return sum(tally.accepted for tally in self.styles.values())

    @property
    def finished(self) -> Mapping[str, int]:
        """How many orders are final, by status."""
        tallies = self.styles.values()
        return {status: sum(tally.finished[status] for tally in tallies) for status in FINAL}

    @property
    def unfinished(self) -> set[str]:
        """The ids of accepted orders that are not final yet."""
        return set[str]().union(*(tally.unfinished for tally in self.styles.values()))

    @property
    def all_accepted(self) -> bool:
        """Whether every order that was to be placed was."""
        return self.accepted == self.requested


def completion_s(order: Mapping[str, Any]) -> float | None:
    """Seconds from an order's acceptance to its completion; None where that is not told."""
    try:
        began, ended = (datetime.fromisoformat(order[at]) for at in ("accepted_at", "completed_at"))
        return (ended - began).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def holding_up(order: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The steps by name that keep an order from completion: none of participants who joined later."""
    return {
        name: step
        for name, step in order["steps"].items()
        if step["status"] in ("pending", "failed") and step.get("awaited", True)
    }
