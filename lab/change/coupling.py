"""Coupling before and after a change, as rows to be shown: who depends on whom, and who learns what. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.change.found import Found
from lab.coupling.graph import Degree
from lab.coupling.markers import FACTS
from lab.coupling.observed import Observed


@dataclass(frozen=True)
class Compared:
    """What a change did to coupling; `per_order` and `news` are sentences.

    `degrees` are rows: a service, its AIS and ADS, and both by knowledge; `before > after` where they differ.
    """

    degrees: Sequence[tuple[str, ...]]
    factor: str
    per_order: Sequence[str]
    news: Sequence[str]


@dataclass(frozen=True)
class Learnt:
    """Of one style: by fact, whom it reached and which stores keep it."""

    style: str
    rows: Sequence[tuple[str, str, str]]


def compare(found: Found) -> Compared | None:
    """Before and after one experiment; None where that was not looked at."""
    if not (found.before and found.after and found.seen_before and found.seen_after):
        return None
    before = {degree.service: degree for degree in found.before.degrees()}
    after = {degree.service: degree for degree in found.after.degrees()}
    names = dict.fromkeys([*before, *after])
    factors = [graph.factor() for graph in (found.before, found.after)]
    told = [f"{each.edges}/({each.nodes}·{each.nodes - 1}) = {each.value:.3f}" for each in factors]
    return Compared(
        degrees=[(name, *_moved(_counts(before.get(name)), _counts(after.get(name)))) for name in names],
        factor=" > ".join(dict.fromkeys(told)),
        per_order=_per_order(found.seen_before, found.seen_after),
        news=_news(found.seen_before, found.seen_after),
    )


def learnt(found: Iterable[Found]) -> list[Learnt]:
    """Who learns what of an order, in each style, before any change."""
    first: dict[str, Observed] = {}
    for each in found:
        if each.seen_before is not None and each.arm.base is None:
            first.setdefault(each.arm.name, each.seen_before)
    return [
        Learnt(style, [(fact, _whom(seen, fact), _stores(seen, fact)) for fact in FACTS])
        for style, seen in first.items()
    ]


def _whom(seen: Observed, fact: str) -> str:
    told = {
        each.service: each.reads for each in seen.learnt if each.fact == fact and each.service != "broker"
    }
    return ", ".join(f"{name} (unread)" if reads is False else name for name, reads in sorted(told.items()))


def _stores(seen: Observed, fact: str) -> str:
    return ", ".join(sorted({each.store for each in seen.held if each.fact == fact}))


def _counts(degree: Degree | None) -> tuple[int, ...]:
    if degree is None:
        return ()
    names = (degree.depended_on_by, degree.depends_on, degree.known_by, degree.knows)
    return tuple(len(each) for each in names)


def _moved(before: Sequence[int], after: Sequence[int]) -> list[str]:
    if not before or not after:
        return [f"{number} (new)" if after else f"{number} (gone)" for number in before or after]
    return [str(old) if old == new else f"{old} > {new}" for old, new in zip(before, after, strict=True)]


def _per_order(before: Observed, after: Observed) -> list[str]:
    kinds = {
        "calls": "calls_per_order",
        "messages": "messages_per_order",
        "deliveries": "deliveries_per_order",
    }
    documents = before.as_document(), after.as_document()
    pairs = {kind: [f"{float(each[key]):g}" for each in documents] for kind, key in kinds.items()}
    return [f"{kind} per order: {' > '.join(dict.fromkeys(pair))}" for kind, pair in pairs.items()]


def _news(before: Observed, after: Observed) -> list[str]:
    def facts(seen: Observed) -> dict[str, set[str]]:
        by_service: dict[str, set[str]] = {}
        for each in seen.learnt:
            by_service.setdefault(each.service, set()).add(each.fact)
        return by_service

    old, new = facts(before), facts(after)
    told = []
    for name in sorted(old.keys() | new.keys()):
        more, less = new.get(name, set()) - old.get(name, set()), old.get(name, set()) - new.get(name, set())
        told += [f"{name} now learns {', '.join(sorted(more))}"] if more else []
        told += [f"{name} no longer learns {', '.join(sorted(less))}"] if less else []
    return told
