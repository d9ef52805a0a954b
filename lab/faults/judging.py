"""What became of every client's intention, and the figures of a cell: the books of one arm under one fault.

An intention is one Idempotency-Key: the client meant one order by it, however often it had to ask. What is
owed to it is one confirmation, one shipment and, for a member, one points entry. Pure: intentions, effects
and orders come in, figures go out. It refuses to excuse by what an arm cannot say: where nobody can be asked
for an order, an effect that is lacking is lost.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lab.bench.intervals import percentile
from lab.ledger import (
    IN_PROGRESS,
    NEEDS_ATTENTION,
    OWED_BY_EVERY_ORDER,
    OWED_BY_MEMBERS,
    TROUBLES,
    Effect,
    Order,
    Report,
    reconcile,
)

TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Intention:
    """One key: when its first try was to leave (seconds since 1970), and every order id that it led to.

    `told` is the id in the 2xx that the client got, None if it gave up; `order_ids` holds it, too. `poison`:
    the order is one that the warehouse rightly refuses.
    """

    key: str
    intended: float
    member: bool
    order_ids: frozenset[str]
    told: str | None
    tries: int = 1
    poison: bool = False

    @property
    def owed(self) -> frozenset[str]:
        """The services that owe it an effect each."""
        return OWED_BY_EVERY_ORDER | (OWED_BY_MEMBERS if self.member else frozenset())


class Fate(StrEnum):
    """What became of an accepted intention."""

    COMPLETED = "completed"
    LOST = "lost"
    STUCK = "stuck"  # in progress still, when patience is out
    NEEDS_ATTENTION = "needs_attention"  # lacks an effect, and its order says so


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when the fault lasted, in seconds since 1970."""

    began: float
    healed: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a cell: counts of intentions, but for `orphaned`, which counts orders.

    `p99_ms` is of the completion latency of what was intended during the fault and completed; None: nothing
    was. `recovery_s` is from healing until the last order that was intended before is complete; None: one
    never is. `attempts_per_order` are tries of all steps of an order, by the arm's books; None: it has none.
    `posts_per_order` are the tries of its client. `wrongs` say in sentences why the cell is not sound; a
    naive arm is not judged.
    """

    intended: int
    accepted: int
    refused: int
    completed: int
    lost: int
    duplicated: int
    stuck: int
    needs_attention: int
    orphaned: int
    p99_ms: float | None
    recovery_s: float | None
    attempts_per_order: float | None
    posts_per_order: float | None
    wrongs: Sequence[str] = field(default_factory=tuple)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.wrongs


def judge(
    intentions: Sequence[Intention],
    effects: Mapping[str, Iterable[Effect]],
    orders: Mapping[str, Order] | None,
    span: Span,
    attempts_per_order: float | None = None,
) -> Figures:
    """The figures of a cell from its intentions, the effects by service, and the arm's own orders by id.

    `orders` and `attempts_per_order` are None for an arm that keeps no books.
    """
    books = _Books(effects)
    fates = {each.key: _fate(each, books, orders) for each in intentions if each.told is not None}
    told = Counter(fates.values())
    told_ids = {each.told for each in intentions}
    unfinished = [each for each in intentions if _is_unfinished(each, orders)]
    posts = sum(each.tries for each in intentions) / len(intentions) if intentions else None
    figures = Figures(
        intended=len(intentions),
        accepted=len(fates),
        refused=len(intentions) - len(fates),
        completed=told[Fate.COMPLETED],
        lost=told[Fate.LOST],
        duplicated=sum(books.too_many(each) for each in intentions),
        stuck=len(unfinished),
        needs_attention=told[Fate.NEEDS_ATTENTION],
        orphaned=len(books.order_ids - told_ids),
        p99_ms=_tail_ms(intentions, fates, books, span),
        recovery_s=_recovery_s(intentions, fates, books, span),
        attempts_per_order=attempts_per_order,
        posts_per_order=posts,
    )
    return _with_wrongs(figures, intentions, effects, orders)


class _Books:
    """When each service had an effect for each order."""

    def __init__(self, effects: Mapping[str, Iterable[Effect]]) -> None:
        self._times: dict[str, dict[str, list[float]]] = {name: {} for name in effects}
        for name, found in effects.items():
            for effect in found:
                self._times[name].setdefault(effect.order_id, []).append(effect.at.timestamp())

    @property
    def order_ids(self) -> set[str]:
        """All orders that have an effect somewhere."""
        return {order_id for found in self._times.values() for order_id in found}

    def times(self, intention: Intention, service: str) -> list[float]:
        """When the service had effects for any of the intention's orders."""
        found = self._times.get(service, {})
        return [at for order_id in intention.order_ids for at in found.get(order_id, ())]

    def lacking(self, intention: Intention) -> frozenset[str]:
        """The services whose effect it is owed, and has not."""
        return frozenset(name for name in intention.owed if not self.times(intention, name))

    def too_many(self, intention: Intention) -> bool:
        """Whether some service did more than it owed."""
        return any(
            len(self.times(intention, name)) > (1 if name in intention.owed else 0) for name in self._times
        )

    def completed_at(self, intention: Intention) -> float:
        """When the last effect that it is owed was there for the first time; nothing may be lacking."""
        return max(min(self.times(intention, name)) for name in intention.owed)


def _fate(intention: Intention, books: _Books, orders: Mapping[str, Order] | None) -> Fate:
    lacking = books.lacking(intention)
    if orders is None:
        return Fate.LOST if lacking else Fate.COMPLETED
    order = orders.get(str(intention.told))
    if order is None:
        return Fate.LOST  # whoever accepted it does not know it any more
    if order.status == IN_PROGRESS:
        return Fate.STUCK
    failed = {name for name, step in order.steps.items() if step.status == "failed"}
    if order.status == NEEDS_ATTENTION and lacking <= failed:
        return Fate.NEEDS_ATTENTION
    return Fate.LOST if lacking else Fate.COMPLETED


def _is_unfinished(intention: Intention, orders: Mapping[str, Order] | None) -> bool:
    """Whether an order of it is in progress still, told to the client or not."""
    known = orders or {}
    return any(known[each].status == IN_PROGRESS for each in intention.order_ids if each in known)


def _tail_ms(
    intentions: Iterable[Intention], fates: Mapping[str, Fate], books: _Books, span: Span
) -> float | None:
    took_ms = sorted(
        (books.completed_at(each) - each.intended) * 1000
        for each in intentions
        if fates.get(each.key) is Fate.COMPLETED and span.began <= each.intended <= span.healed
    )
    return percentile(took_ms, TAIL) if took_ms else None


def _recovery_s(
    intentions: Iterable[Intention], fates: Mapping[str, Fate], books: _Books, span: Span
) -> float | None:
    before = [each for each in intentions if each.key in fates and each.intended <= span.healed]
    if any(fates[each.key] in (Fate.LOST, Fate.STUCK) for each in before):
        return None
    done = [books.completed_at(each) for each in before if fates[each.key] is Fate.COMPLETED]
    return max([0.0, *(at - span.healed for at in done)])


def _with_wrongs(
    figures: Figures,
    intentions: Sequence[Intention],
    effects: Mapping[str, Iterable[Effect]],
    orders: Mapping[str, Order] | None,
) -> Figures:
    counts = {"lost": figures.lost, "with an effect too many": figures.duplicated, "stuck": figures.stuck}
    wrongs = [f"{count} {what}" for what, count in counts.items() if count]
    if figures.intended == 0:
        wrongs.append("no order was intended")
    if orders is not None:
        promised = {each.told for each in intentions if each.told is not None}
        report = reconcile(promised, orders.values(), effects)
        if not report.balances:
            wrongs.append(f"the ledger does not balance: {_imbalance(report)}")
        wrongs += _wrong_attention(intentions, orders)
    return replace(figures, wrongs=tuple(wrongs))


def _imbalance(report: Report) -> str:
    counts = {"lost": len(report.lost), **{each.value: report.total(each) for each in TROUBLES}}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _wrong_attention(intentions: Sequence[Intention], orders: Mapping[str, Order]) -> list[str]:
    """Poison and nothing else is to need attention: trouble that passes never fails a step."""
    owners = {order_id: each for each in intentions for order_id in each.order_ids}
    needing = {order_id for order_id, order in orders.items() if order.status == NEEDS_ATTENTION}
    rightly = {order_id for order_id, each in owners.items() if each.poison and order_id in orders}
    wrongs = []
    if needing - rightly:
        wrongs.append(f"{len(needing - rightly)} sound orders need attention")
    if rightly - needing:
        wrongs.append(f"{len(rightly - needing)} poison orders do not need attention")
    return wrongs
