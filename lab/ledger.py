"""The ledger: each order that checkout knows against each service's effects, one verdict for every pair.

What an order is owed is read from its own representation: whether the customer is a member, and what became
of its steps. Who joined later than a choreographed order, or had retired before it, owes it nothing, and may
act on it at any time, but once. Pure: orders and effects come in, a report goes out; who fetches them sees to
a complete read. It refuses to excuse: an order that says `completed` is owed all its effects, whatever its
steps say.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

# SQLite's clock counts whole milliseconds: times closer than this have no order among them.
CLOCK_GRANULARITY = timedelta(milliseconds=5)

COMPLETED = "completed"
IN_PROGRESS = "in_progress"
NEEDS_ATTENTION = "needs_attention"
STATUSES = (IN_PROGRESS, NEEDS_ATTENTION, COMPLETED)
CHOREOGRAPHY = "choreography"
ABANDONED = "abandoned"
RETIRED = "participant retired"

OWED_BY_EVERY_ORDER = frozenset({"email", "warehouse"})
OWED_BY_MEMBERS = frozenset({"rewards"})


class Verdict(StrEnum):
    """What became of one order at one service."""

    EXACTLY_ONCE = "exactly_once"
    NOT_OWED = "not_owed"  # and there is none
    REFUSED = "refused"  # the order says that this step failed, or that an operator gave it up
    MISSING = "missing"
    DUPLICATE = "duplicate"
    UNEXPECTED = "unexpected"  # checkout knows no such order, or the order owed no such effect
    LATE = "late"  # later than the time at which checkout already called the order completed
    UNFINISHED = "unfinished"


TROUBLES = (Verdict.MISSING, Verdict.DUPLICATE, Verdict.UNEXPECTED, Verdict.LATE, Verdict.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Step:
    """A step as the order tells of it; `reason` is why it was skipped or failed.

    It is not `awaited` if its participant joined later than the order was accepted.
    """

    status: str
    reason: str | None = None
    awaited: bool = True


@dataclass(frozen=True, slots=True)
class Order:
    """What an order says of itself; `completed_at` is None until it is completed."""

    order_id: str
    style: str
    status: str
    rewards_member: bool
    completed_at: datetime | None
    steps: Mapping[str, Step]
    accepted_at: datetime


@dataclass(frozen=True, slots=True)
class Effect:
    """One entry of a service's `/effects`: it did its part for this order at this time."""

    order_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Report:
    """The reconciled ledger: counts by service and verdict, and the order ids of every kind of trouble.

    `orders` are the numbers of orders by status, `styles` the same by style.
    """

    accepted: int
    orders: Mapping[str, int]
    styles: Mapping[str, Mapping[str, int]]
    lost: Sequence[str]
    unfinished: Sequence[str]
    counts: Mapping[str, Mapping[Verdict, int]]
    troubles: Mapping[str, Mapping[Verdict, Sequence[str]]] = field(default_factory=dict)

    @property
    def balances(self) -> bool:
        """Whether no accepted order is lost, none is unfinished, and no service has any trouble."""
        return not (self.lost or self.unfinished or any(self.total(verdict) for verdict in TROUBLES))

    def total(self, verdict: Verdict) -> int:
        """How often the verdict was given, over all services."""
        return sum(counts[verdict] for counts in self.counts.values())


def reconcile(
    accepted: Iterable[str],
    orders: Iterable[Order],
    effects: Mapping[str, Iterable[Effect]],
    repaired: Mapping[str, frozenset[str]] | None = None,
    retired: Mapping[str, datetime] | None = None,
) -> Report:
    """Judge every order at every service of `effects`, and every effect whose order is unknown.

    `accepted` are the ids that clients were given; `repaired` names, by service, the orders whose effect the
    operator has sent again, which is why it is later than the order; `retired` says since when a service
    takes part in no choreographed order any more.
    """
    known = {order.order_id: order for order in orders}
    promised = set(accepted)
    counts: dict[str, Mapping[Verdict, int]] = {}
    troubles: dict[str, Mapping[Verdict, Sequence[str]]] = {}
    for service, found in effects.items():
        resent, retired_at = (repaired or {}).get(service, frozenset()), (retired or {}).get(service)
        verdicts = _judge_all(service, known, found, resent, retired_at)
        told = Counter(verdict for _, verdict in verdicts)
        counts[service] = {verdict: told[verdict] for verdict in Verdict}
        troubles[service] = {
            kind: sorted(order_id for order_id, verdict in verdicts if verdict is kind)
            for kind in TROUBLES
            if told[kind]
        }
    styles = sorted({order.style for order in known.values()})
    return Report(
        accepted=len(promised),
        orders=_by_status(known.values()),
        styles={style: _by_status(o for o in known.values() if o.style == style) for style in styles},
        lost=sorted(promised - known.keys()),
        unfinished=sorted(order.order_id for order in known.values() if order.status == IN_PROGRESS),
        counts=counts,
        troubles=troubles,
    )


def judge(
    order: Order,
    service: str,
    times: Sequence[datetime],
    *,
    repaired: bool = False,
    retired_at: datetime | None = None,
) -> Verdict:
    """The verdict on one order at one service, whose effects for it came at `times`."""
    step = order.steps.get(service)
    concerned = is_concerned(order, service)
    if step is not None:
        awaited = step.awaited
    else:
        gone = order.style == CHOREOGRAPHY and retired_at is not None and retired_at <= order.accepted_at
        awaited = service in OWED_BY_EVERY_ORDER | OWED_BY_MEMBERS and not gone
    if len(times) > 1:
        return Verdict.DUPLICATE
    if times:
        late = awaited and not repaired and _is_late(order, times[0])
        return _judge_effect(order, step, concerned=concerned, late=late)
    if not concerned:
        return Verdict.NOT_OWED
    if step is not None and (_is_given_up(order, step) or _is_refused(order, step)):
        return Verdict.REFUSED
    if not awaited:
        return Verdict.NOT_OWED
    if order.status == IN_PROGRESS and (step is None or step.status == "pending"):
        return Verdict.UNFINISHED
    return Verdict.MISSING


def is_concerned(order: Order, service: str) -> bool:
    """Whether the service is to act on the order: of the article's three, by the promise.

    Another service acts on an order whose steps name it, and on any event that it hears: whoever joined later
    than the order may act before the order tells of it.
    """
    if service in OWED_BY_EVERY_ORDER:
        return True
    if service in OWED_BY_MEMBERS:
        return order.rewards_member
    step = order.steps.get(service)
    if step is None:
        return order.style == CHOREOGRAPHY
    return step.status != "skipped" or step.reason == RETIRED


def _judge_effect(order: Order, step: Step | None, *, concerned: bool, late: bool) -> Verdict:
    if not concerned:
        return Verdict.UNEXPECTED
    if step is not None and _is_given_up(order, step):
        return Verdict.REFUSED  # it may have done its work, untold, before the operator gave it up
    if step is not None and _is_refused(order, step):
        return Verdict.UNEXPECTED  # who refuses stores nothing: refusal and effect contradict each other
    return Verdict.LATE if late else Verdict.EXACTLY_ONCE


def _is_given_up(order: Order, step: Step) -> bool:
    """Whether an operator has ended this step, by abandoning the order or retiring the participant."""
    retired = step.status == "skipped" and step.reason == RETIRED
    return retired or (_is_refused(order, step) and step.reason == ABANDONED)


def _is_refused(order: Order, step: Step) -> bool:
    """Whether the order says that this step failed; one that says `completed` excuses none that it awaits."""
    return step.status == "failed" and (order.status != COMPLETED or not step.awaited)


def _is_late(order: Order, at: datetime) -> bool:
    return order.completed_at is not None and at > order.completed_at + CLOCK_GRANULARITY


def _by_status(orders: Iterable[Order]) -> Mapping[str, int]:
    found = Counter(order.status for order in orders)
    return {status: found[status] for status in STATUSES}


def _judge_all(
    service: str,
    known: Mapping[str, Order],
    effects: Iterable[Effect],
    repaired: frozenset[str],
    retired_at: datetime | None,
) -> list[tuple[str, Verdict]]:
    times: dict[str, list[datetime]] = {}
    for effect in effects:
        times.setdefault(effect.order_id, []).append(effect.at)
    verdicts = [
        (
            order_id,
            judge(
                order, service, times.get(order_id, ()), repaired=order_id in repaired, retired_at=retired_at
            ),
        )
        for order_id, order in known.items()
    ]
    verdicts += [(order_id, Verdict.UNEXPECTED) for order_id in times.keys() - known.keys()]
    return verdicts
