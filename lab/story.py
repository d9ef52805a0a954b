"""One order's story: who did what, when, in how many tries, and whom the order waits for. Pure.

It is told from two sides that know nothing of each other: checkout's representation, which has heard of it,
and each service's own record, which has done it. So the same picture comes of both styles. It refuses to
guess: of a service that does not answer it says so, and gives no verdict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lab.ledger import ABANDONED, COMPLETED, IN_PROGRESS, Effect, Verdict, judge
from lab.outcome import holding_up
from lab.reading import parse_order
from lab.system import CONDUCTOR
from lab.text import amount, plain

Json = Mapping[str, Any]

DEEDS = {
    "email": "recorded the confirmation",
    "warehouse": "stored the shipment",
    "rewards": "entered the points",
}
DEED = "did its part"
STATES = ("delivery", "state")


@dataclass(frozen=True, slots=True)
class Witness:
    """What one service says of the order: its effects, and its record if it keeps one by order id.

    `trouble` is why it could not be asked; the rest is empty then. `retired_at`: since when it takes part in
    no choreographed order; `repaired`: an operator has sent the order to it again.
    """

    effects: Sequence[Effect] = ()
    record: Json | None = None
    trouble: str | None = None
    repaired: bool = False
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `tries` is None where nobody counts them."""

    at: datetime
    who: str
    what: str
    tries: int | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """Whom the order waits for, why, and since when (None: no trouble is known yet).

    `done_at` is when that service did its part all the same, as its own record says: checkout has not heard.
    """

    who: str
    why: str
    since: datetime | None
    tries: int
    done_at: datetime | None = None


@dataclass(frozen=True)
class Story:
    """The order, what happened in order of time, the verdict on each service, and whom it waits for."""

    order: Json
    told_at: datetime
    events: Sequence[Event]
    witnesses: Mapping[str, Witness]
    verdicts: Mapping[str, Verdict | None]
    waits_for: Sequence[Awaited] = field(default_factory=tuple)

    @property
    def accepted_at(self) -> datetime:
        """When checkout had the order on disk: where the offsets count from."""
        return _time(self.order["accepted_at"])

    def offset_ms(self, at: datetime) -> float:
        """Milliseconds from the order's acceptance."""
        return round((at - self.accepted_at).total_seconds() * 1000, 3)

    @property
    def line(self) -> str:
        """How the order stands, in one line."""
        if self.order["status"] == COMPLETED:
            return f"completed after {self.offset_ms(_time(self.order['completed_at'])):.0f} ms"
        if self.order["status"] == IN_PROGRESS:
            named = ", ".join(self._waiting(awaited) for awaited in self.waits_for)
            return f"waits for: {named or 'somebody to take part: no step is known yet'}"
        if self.waits_for and all(awaited.why == ABANDONED for awaited in self.waits_for):
            return f"waits for nobody: an operator gave up {_names(self.waits_for)}"
        failed = ", ".join(
            f"{awaited.who} failed ({awaited.why}) at try {awaited.tries}" for awaited in self.waits_for
        )
        order_id = self.order["order_id"]
        return f"waits for a person: {failed}: duet stuck retry {order_id}, or duet stuck abandon {order_id}"

    def _waiting(self, awaited: Awaited) -> str:
        since = f" for {_seconds(awaited.since, self.told_at)}" if awaited.since else ""
        told = [f"{awaited.why}{since}"] if awaited.why else []
        if awaited.tries:
            told.append(tries_in_words(awaited.tries))
        if awaited.done_at is not None:
            told.append(
                f"did its part {_seconds(awaited.done_at, self.told_at)} ago, of which checkout has not heard"
            )
        return f"{awaited.who} ({', '.join(told) or 'no trouble known'})"


def tell(order: Json, witnesses: Mapping[str, Witness], told_at: datetime) -> Story:
    """The story of one order by its representation and what every service says of it.

    Raises `LabError` where the representation cannot be read. What was asked of the services was asked after
    the representation was read, or a verdict may be `missing` that is only young.
    """
    entry = parse_order(order)
    verdicts = {
        name: None
        if said.trouble
        else judge(
            entry,
            name,
            [effect.at for effect in said.effects],
            repaired=said.repaired,
            retired_at=said.retired_at,
        )
        for name, said in witnesses.items()
    }
    events = [*_checkouts_events(order), *_services_events(witnesses)]
    events.sort(key=lambda event: (event.at, event.what.startswith("completed")))
    return Story(order, told_at, events, witnesses, verdicts, _waits_for(order, witnesses))


def as_document(story: Story) -> dict[str, Any]:
    """The story as `duet timeline --json` prints it: offsets in milliseconds from acceptance."""
    return {
        "order_id": story.order["order_id"],
        "style": story.order["style"],
        "status": story.order["status"],
        "accepted_at": story.order["accepted_at"],
        "completed_at": story.order.get("completed_at"),
        "told_at": story.told_at.isoformat(),
        "events": [
            {
                "at": event.at.isoformat(),
                "offset_ms": story.offset_ms(event.at),
                "who": event.who,
                "what": event.what,
                "tries": event.tries,
            }
            for event in story.events
        ],
        "services": {
            name: {
                "answers": said.trouble is None,
                "trouble": said.trouble,
                "effects": [effect.at.isoformat() for effect in said.effects],
                "verdict": story.verdicts[name],
                "record": said.record,
                "step": story.order["steps"].get(name),
            }
            for name, said in story.witnesses.items()
        },
        "waits_for": [
            {
                "who": awaited.who,
                "why": awaited.why,
                "since": awaited.since.isoformat() if awaited.since else None,
                "tries": awaited.tries,
                "done_at": awaited.done_at.isoformat() if awaited.done_at else None,
            }
            for awaited in story.waits_for
        ],
        "line": story.line,
    }


def tries_in_words(number: int) -> str:
    """`1 try`, `2 tries`."""
    return f"{number} {'try' if number == 1 else 'tries'}"


def _checkouts_events(order: Json) -> Iterable[Event]:
    """What checkout did and heard. Steps that have no time of their own (a skipped one) are not here."""
    total = amount(order["total_minor"], order["currency"])
    yield Event(_time(order["accepted_at"]), CONDUCTOR, f"accepted the order: {order['style']}, {total}")
    for name, step in order["steps"].items():
        tries = step.get("attempts")
        if at := step.get("finished_at"):
            yield Event(_time(at), CONDUCTOR, f"knows {name} as {_outcome(step)}", tries)
        elif step["status"] == "pending" and step.get("since"):
            yield Event(
                _time(step["since"]), CONDUCTOR, f"misses {name}: {plain(step.get('last_error'))}", tries
            )
    if order.get("completed_at"):
        yield Event(_time(order["completed_at"]), CONDUCTOR, "completed the order")


def _services_events(witnesses: Mapping[str, Witness]) -> Iterable[Event]:
    for name, said in witnesses.items():
        for effect in said.effects:
            yield Event(effect.at, name, DEEDS.get(name, DEED))
        record = said.record or {}
        if record.get("delivered_at"):
            yield Event(
                _time(record["delivered_at"]), name, "delivered the confirmation", record.get("attempts")
            )
        changed_at = record.get("changed_at")
        if changed_at and changed_at != record.get("prepared_at"):
            yield Event(_time(changed_at), name, f"has the shipment {plain(record.get('state'))}")


def _waits_for(order: Json, witnesses: Mapping[str, Witness]) -> list[Awaited]:
    found = []
    for name, step in holding_up(order).items():
        if step["status"] == "failed" and order["status"] == IN_PROGRESS:
            continue  # it rests until the others are done
        effects = witnesses[name].effects if name in witnesses else ()
        found.append(
            Awaited(
                who=name,
                why=plain(step.get("reason") or step.get("last_error") or ""),
                since=_time(step["since"]) if step.get("since") else None,
                tries=int(step.get("attempts", 0)),
                done_at=effects[0].at if effects and step["status"] == "pending" else None,
            )
        )
    return found


def _outcome(step: Json) -> str:
    if step.get("reason"):
        return f"{step['status']}: {plain(step['reason'])}"
    result = step.get("result") or {}
    told = [f"{key} {plain(result[key])}" for key in (*STATES, "points") if key in result]
    return ", ".join([step["status"], *told])


def _names(awaited: Sequence[Awaited]) -> str:
    return ", ".join(each.who for each in awaited)


def _seconds(since: datetime, until: datetime) -> str:
    return f"{max(0.0, (until - since).total_seconds()):.1f} s"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
