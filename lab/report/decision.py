"""An architecture decision record from the same data, in the form of MADR: all but the decision is filled in.

Source: Markdown Any Decision Records, adr.github.io/madr. It refuses to choose: it says for what each verdict
speaks, and leaves the choice, and who made it, to the team.
"""

from collections.abc import Sequence
from typing import Any

from lab.compare.verdicts import EQUIVALENT, UNDECIDED
from lab.report.data import Data
from lab.report.documents import Changes, Comparison, Faults, Figure
from lab.report.parts import NONE, Part, Says, Table, cells
from lab.report.told import not_said, what_was_compared
from lab.report.verdicts import in_short, ratio, table

SUMMED = ("ES", "F", "L", "K", "R", "X", "refused", "slow")
WHAT = {
    "orchestration": "the checkout service calls the three services and aggregates their replies.",
    "choreography": "the checkout service emits one event; the services subscribe and act.",
}
KNOWN = {
    "orchestration": "One place knows every step and says where an order is; it changes with each "
    "service that is added or moved.",
    "choreography": "A new service joins without a change of checkout; a broker must run, and who acts on "
    "an order is known only by listening.",
}
Told = tuple[str, Figure]  # what it was measured in, and the figure


def record(data: Data) -> dict[str, Any]:
    """What the template of the record wants."""
    documents = [each for each in (data.compare, data.faults) if each is not None]
    figures = _figures(data.compare)
    options = [(name, WHAT.get(name, "a variant of our own.")) for name in _options(data)]
    return {
        "date": max((each.made_at[:10] for each in documents), default=NONE),
        "compared": what_was_compared(data),
        "options": options,
        "evidence": _evidence(data),
        "outcome": _outcome(figures),
        "consequences": [(name, _consequences(name, figures, data)) for name, _ in options],
        "either_way": _either_way(figures),
        "not_said": not_said(data),
        "commands": [*(each.command for each in documents), *(["duet change all"] if data.changes else [])],
    }


def _options(data: Data) -> list[str]:
    if data.compare is not None:
        return [each.name for each in data.compare.arms]
    if data.faults is not None:
        return [each.name for each in data.faults.arms if each.durable]
    assert data.changes is not None  # a folder without data is refused
    return list(dict.fromkeys(each.arm for each in data.changes.experiments))


def _figures(compare: Comparison | None) -> list[Told]:
    if compare is None:
        return []
    told = [(each.title, figure) for each in compare.scenarios for figure in each.figures]
    return told if compare.capacity is None else [*told, ("Capacity", compare.capacity.figure)]


def _evidence(data: Data) -> list[Part]:
    parts: list[Part] = []
    if data.compare is not None:
        if not data.compare.passed:
            parts.append(Says(["This comparison has failed: its figures are not to be used."]))
        parts.append(Says(in_short(data.compare), listed=True))
        for scenario in data.compare.scenarios:
            for a, b in dict.fromkeys((each.a, each.b) for each in scenario.figures):
                of = [each for each in scenario.figures if (each.a, each.b) == (a, b)]
                parts.append(table(of, f"{scenario.title}, {scenario.rate:g} orders a second"))
        if data.compare.capacity is not None:
            parts.append(table([data.compare.capacity.figure], "Capacity"))
    if data.faults is not None:
        parts.append(_fault_table(data.faults))
    if data.changes is not None:
        parts.append(_change_table(data.changes))
    return parts


def _fault_table(found: Faults) -> Table:
    rows = []
    for arm in found.arms:
        of = [each for each in found.cells if each.arm == arm.name and not each.skipped]
        sums = (sum(getattr(each, field) for each in of) for field in ("lost", "duplicated", "stuck"))
        rows.append(cells(arm.name, str(len(of)), str(sum(each.sound for each in of)), *map(str, sums)))
    headings = ("arm", "faults", "ended sound", "lost", "duplicated", "stuck")
    return Table("Faults: orders lost, duplicated, stuck over all of them", headings, rows)


def _change_table(found: Changes) -> Table:
    arms = list(dict.fromkeys(each.arm for each in found.experiments if not each.careless))
    done = {
        arm: {e.scenario: e for e in found.experiments if e.arm == arm and not e.careless} for arm in arms
    }
    rows = []
    for arm in arms:
        sums = [sum(_whole(each.figures.get(name)) for each in done[arm].values()) for name in SUMMED]
        rows.append(cells(arm, str(len(done[arm])), *map(str, sums)))
    caption = "The cost of change, over all changes of an arm made with care (lab's names: see report.md)"
    return Table(caption, ("arm", "changes", *SUMMED), rows)


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _outcome(figures: Sequence[Told]) -> str:
    """What the verdicts alone say, and no more."""
    named = {figure.verdict for _, figure in figures} - {EQUIVALENT, UNDECIDED}
    if not figures:
        return "Nothing was compared by speed or cost: there is no verdict."
    if not named:
        return "No verdict speaks for any option: by these figures alone, none is to be preferred."
    if len(named) == 1:
        return f"Every verdict for an option is for {named.pop()}; what the figures leave out may weigh more."
    return f"Some verdicts are for {', some for '.join(sorted(named))}: it depends on which figures matter."


def _consequences(name: str, figures: Sequence[Told], data: Data) -> list[str]:
    told = [KNOWN[name]] if name in KNOWN else []
    for title, figure in figures:
        if name not in (figure.a, figure.b) or figure.verdict in (EQUIVALENT, UNDECIDED):
            continue
        other = figure.b if name == figure.a else figure.a
        way = f"{figure.b} / {figure.a} = {ratio(figure)}"
        good = f"Good: better than {other} in {figure.title} ({title}): {way}."
        told.append(
            good if figure.verdict == name else f"Bad: {other} is better in {figure.title} ({title}): {way}."
        )
    if data.faults is not None:
        of = [each for each in data.faults.cells if each.arm == name and not each.skipped]
        wrong = [each.fault for each in of if not each.sound]
        if of and not wrong:
            told.append(f"Good: it ended all {len(of)} faults with nothing lost, doubled or stuck.")
        elif wrong:
            told.append(f"Bad: it did not end soundly under {', '.join(wrong)}.")
    return told or ["Nothing measured speaks for or against it."]


def _either_way(figures: Sequence[Told]) -> list[str]:
    told = []
    for kind in (EQUIVALENT, UNDECIDED):
        of = [f"{figure.title} ({title})" for title, figure in figures if figure.verdict == kind]
        if of:
            told.append(f"{kind[0].upper()}{kind[1:]}: {'; '.join(of)}.")
    return told
