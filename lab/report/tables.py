"""The tables of a report: rows of text from the data. Pure; the same rows serve the page and the Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]

NONE = "–"
OUTCOMES = ("lost", "duplicated", "stuck", "orphaned")
CHANGE_FIGURES = ("ES", "F", "L", "K", "stages", "R", "X", "refused", "slow", "longest", "lost", "doubled")


@dataclass(frozen=True)
class Table:
    """Headings and rows; `marks` gives a cell, by row and column, a class of the page's stylesheet."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    marks: Mapping[tuple[int, int], str]


def verdicts(scenario: Document) -> Table:
    """The figures of one scenario: both values, the ratio with its interval, and the verdict in words."""
    return verdict_table(scenario["figures"])


def verdict_table(figures: Sequence[Document]) -> Table:
    """As above, of any figures. Where they are of several pairs of arms, the arms are told in each row."""
    pairs = {(each["a"], each["b"]) for each in figures}
    one = next(iter(pairs)) if len(pairs) == 1 else ("first", "second")
    rows, marks = [], {}
    for number, each in enumerate(figures):
        title = each["title"] if len(pairs) == 1 else f"{each['title']}: {each['a']}, {each['b']}"
        unit = f", {each['unit']}"
        rows.append(
            (title + unit, number_of(each["a_value"]), number_of(each["b_value"]), ratio(each), verdict(each))
        )
        marks[number, 4] = "open" if each["verdict"] == "undecided" else "told"
    return Table(("figure", *one, "ratio [interval]", "verdict"), rows, marks)


def ratio(figure: Document) -> str:
    """A ratio with its interval: `1.31 [1.22, 1.41]`."""
    told = figure["ratio"]
    return NONE if told is None else f"{told['point']:.2f} [{told['low']:.2f}, {told['high']:.2f}]"


def verdict(figure: Document) -> str:
    """A verdict in a few words."""
    if figure["verdict"] == "undecided":
        seen = figure["smallest"]
        return "undecided" if seen is None else f"undecided (a ratio of {seen:.2f} would have been seen)"
    return "equivalent" if figure["verdict"] == "equivalent" else f"{figure['verdict']} is better"


def per_order(scenarios: Sequence[Document]) -> Table:
    """Calls, events and deliveries of an order, CPU and memory, by scenario and arm."""
    rows = []
    for each in scenarios:
        for arm in each["arms"]:
            windows = [w for w in each["windows"] if w["arm"] == arm]
            memory = [sum(w["memory_mb"].values()) for w in windows if w["memory_mb"]]
            counts = ("calls_per_order", "messages_per_order", "deliveries_per_order", "system_cpu_ms")
            rows.append(
                (
                    each["title"],
                    arm,
                    *(number_of(mean([w.get(key) for w in windows])) for key in counts),
                    number_of(mean(memory)),
                )
            )
    headings = ("scenario", "arm", "HTTP calls", "messages", "deliveries", "CPU ms", "memory, MB")
    return Table(headings, rows, {})


def ablations(found: Sequence[Document]) -> Table:
    """What it changes to leave a part out: ratios of without to as it is."""
    titles = [figure["title"] for figure in found[0]["figures"]] if found else []
    rows, marks = [], {}
    for number, each in enumerate(found):
        rows.append((each["title"], each["style"], *(ratio(figure) for figure in each["figures"])))
        for column, figure in enumerate(each["figures"], 2):
            marks[number, column] = "open" if figure["verdict"] == "undecided" else "told"
    return Table(("without", "style", *titles), rows, marks)


def faults(document: Document) -> Table:
    """The matrix: a row for each fault, a column for each arm."""
    arms = [arm["name"] for arm in document["arms"]]
    cells = {(cell["fault"], cell["arm"]): cell for cell in document["cells"]}
    rows, marks = [], {}
    for number, fault in enumerate(document["faults"]):
        row = [fault["title"]]
        for column, arm in enumerate(arms, 1):
            text, mark = outcome(cells.get((fault["slug"], arm)))
            row.append(text)
            marks[number, column] = mark
        rows.append(row)
    return Table(("fault", *arms), rows, marks)


def outcome(cell: Document | None) -> tuple[str, str]:
    """A cell of the matrix as text, and its class."""
    if cell is None:
        return NONE, "none"
    if cell["skipped"]:
        return f"skipped: {cell['skipped']}", "none"
    told = [f"{name} {cell[name]}" for name in OUTCOMES if cell[name]]
    if told:
        return ", ".join(told), "bad"
    if not cell["sound"]:
        return "; ".join(cell["notes"]) or "not sound", "bad"
    refused = f"ok, {cell['refused']} refused" if cell["refused"] else "ok"
    return refused, "good"


def fault_times(document: Document) -> Table:
    """p99 of completion during each fault, and the time to recover, by arm."""
    arms = [arm["name"] for arm in document["arms"]]
    cells = {(cell["fault"], cell["arm"]): cell for cell in document["cells"]}
    rows = []
    for fault in document["faults"]:
        row = [fault["title"]]
        for arm in arms:
            cell = cells.get((fault["slug"], arm))
            row.append(_times(cell) if cell is not None and not cell["skipped"] else NONE)
        rows.append(row)
    return Table(("fault", *(f"{arm}: p99, recovery, tries" for arm in arms)), rows, {})


def changes(document: Document) -> Table:
    """The cost of change: a row for each experiment, the figures as `duet change` names them."""
    rows, marks = [], {}
    known = [c for c in CHANGE_FIGURES if any(c in each["figures"] for each in document["experiments"])]
    for number, each in enumerate(document["experiments"]):
        arm = f"{each['arm']}, careless" if each["careless"] else each["arm"]
        rows.append((each["scenario"], arm, *(str(each["figures"].get(column, NONE)) for column in known)))
        if not each["sound"]:
            marks[number, 1] = "bad"
    return Table(("change", "arm", *known), rows, marks)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def number_of(value: float | None) -> str:
    """A number in three digits or so."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _times(cell: Document) -> str:
    p99 = NONE if cell["p99_ms"] is None else f"{cell['p99_ms'] / 1000:.2f} s"
    recovery = NONE if cell["recovery_s"] is None else f"{cell['recovery_s']:.1f} s"
    return f"{p99}, {recovery}, {number_of(cell['attempts_per_order'])}"
