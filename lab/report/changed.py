"""The section on what a change costs, from the experiments of `duet change`."""

from lab.change.report import COLUMNS
from lab.report.documents import Changes
from lab.report.parts import NONE, Cell, Part, Says, Section, Table, cells


def change_section(found: Changes | None, lacks: str) -> Section:
    """A row for each experiment, with the figures under the names that `duet change` gives them."""
    title = "The cost of change"
    if found is None:
        return Section("changes", title, lacks=lacks)
    known = [name for name, _ in COLUMNS if any(name in each.figures for each in found.experiments)]
    rows = []
    for each in found.experiments:
        arm = f"{each.arm}, careless ({each.careless.replace('_', ' ')})" if each.careless else each.arm
        told = Cell(arm, "good" if each.sound else "bad", "" if each.sound else "not sound")
        rows.append(
            cells(f"{each.number:g} {each.scenario}", told, *(each.figures.get(c, NONE) for c in known))
        )
    notes = [(name, what.replace("`", "")) for name, what in COLUMNS if name in known]
    parts: list[Part] = [
        Says([found.setting.sentence]),
        Table(
            "What each change cost, in each arm", ("change", "arm", *known), rows, frozenset({0, 1}), notes
        ),
    ]
    errors = [
        f"{each.scenario}, {each.arm}: could not be carried out: {each.error.rstrip('.')}."
        for each in found.experiments
        if each.error
    ]
    if errors:
        parts.append(Says(errors, listed=True, mark="bad"))
    parts.append(
        Says(["`duet change` has written changes.html, too, with a plot and the files of each change."])
    )
    return Section("changes", title, parts)
