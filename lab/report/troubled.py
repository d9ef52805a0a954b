"""The section on faults: a matrix that reads in colour, in grey, and aloud."""

from lab.report.documents import Cell as Outcome
from lab.report.documents import Faults
from lab.report.parts import NONE, Cell, Part, Says, Section, Table, cells, number

NO_BREAK = "\u00a0"
COUNTED = (
    ("lost", "lost"),
    ("duplicated", "dup"),
    ("stuck", "stuck"),
)
NOTES = (
    ("ok", "every order that was accepted has each of its effects once"),
    ("lost", "orders that were accepted and lack an effect in the end, with nobody left who would say so"),
    ("dup", "orders with an effect too many"),
    ("stuck", "orders still unfinished when patience was out"),
    ("orphan", "orders with effects whose client was never told that they were accepted"),
    ("attention", "orders that say of themselves that somebody must look after them"),
    ("meant", "orders that clients meant, by their keys, however often they asked"),
    ("tries", "tries of all steps of an order, by the arm's books, on average; a naive arm keeps none"),
    ("posts", "posts of an order by its client, on average"),
    ("p99", "completion latency of the orders due during the fault"),
    ("back after", "time from the end of the fault until everything of before is complete"),
)
FIGURES = {
    "intended": "meant",
    "accepted": "accepted",
    "refused": "refused",
    "completed": "completed",
    "lost": "lost",
    "duplicated": "dup",
    "stuck": "stuck",
    "needs_attention": "attention",
    "orphaned": "orphan",
}


def fault_section(found: Faults | None, lacks: str) -> Section:
    """The matrix, what the faults are, and every figure on demand."""
    title = "Faults"
    if found is None:
        return Section("faults", title, lacks=lacks)
    told = (
        f"Each cell is a fresh system under {found.rate:g} orders a second (where a fault says no other), "
        f"with the same orders and the same fault for every arm, from seed {found.seed}."
    )
    arms = [f"{each.title}: {each.what.rstrip('.')}." for each in found.arms]
    notes = [
        f"{outcome.fault}, {outcome.arm}: {'; '.join(outcome.notes)}."
        for outcome in found.cells
        if outcome.notes and not outcome.skipped
    ]
    parts: list[Part] = [
        Says([told]),
        Says(arms, listed=True),
        _matrix(found),
        _meanings(found),
        _figures(found),
    ]
    if notes:
        parts.append(Says(notes, listed=True, mark="small", folded="What was noted of single cells"))
    return Section("faults", title, parts)


def matrix_cell(outcome: Outcome | None) -> Cell:
    """What a cell of the matrix says, and its mark."""
    if outcome is None:
        return Cell("not run", "none")
    if outcome.skipped:
        return Cell("skipped", "none", outcome.skipped)
    if not outcome.intended:
        return Cell("failed to run", "bad", "; ".join(outcome.notes))
    wrong = [f"{word} {getattr(outcome, field)}" for field, word in COUNTED if getattr(outcome, field)]
    if not wrong and not outcome.sound:
        wrong = ["not sound"]
    also = [
        f"{word} {count}"
        for word, count in (
            ("orphan", outcome.orphaned),
            ("refused", outcome.refused),
            ("attention", outcome.needs_attention),
        )
        if count
    ]
    times = []
    if outcome.p99_ms is not None:
        times.append(f"p99 {_time(outcome.p99_ms / 1000)}")
    if outcome.recovery_s is not None:
        times.append(f"back after {_time(outcome.recovery_s)}")
    mark = "bad" if wrong else "none" if outcome.orphaned else "good"  # work for nobody is not all well
    return Cell(", ".join(wrong) or "ok", mark, "; ".join([*also, *times]))


def _matrix(found: Faults) -> Table:
    by_place = {(each.fault, each.arm): each for each in found.cells}
    rows = [
        cells(fault.title, *(matrix_cell(by_place.get((fault.slug, arm.name))) for arm in found.arms))
        for fault in found.faults
    ]
    headings = ("fault", *(f"{arm.title}{' (durable)' if arm.durable else ''}" for arm in found.arms))
    texts = frozenset(range(len(headings)))
    caption = "What became of the orders under each fault"
    return Table(caption, headings, rows, texts, NOTES, even=True, stacked=True)


def _meanings(found: Faults) -> Table:
    rows = [cells(each.title, each.group, each.what) for each in found.faults]
    return Table("The faults", ("fault", "group", "what it is"), rows, frozenset({0, 1, 2}), folded=True)


def _figures(found: Faults) -> Table:
    titles = {each.slug: each.title for each in found.faults}
    rows = [
        cells(
            titles.get(each.fault, each.fault),
            each.arm,
            *(NONE if each.skipped else str(getattr(each, figure)) for figure in FIGURES),
            NONE if each.p99_ms is None else _time(each.p99_ms / 1000),
            NONE if each.recovery_s is None else _time(each.recovery_s),
            number(each.attempts_per_order),
            number(each.posts_per_order),
        )
        for each in found.cells
    ]
    headings = ("fault", "arm", *FIGURES.values(), "p99", "back after", "tries", "posts")
    return Table("Every figure of every cell", headings, rows, frozenset({0, 1}), folded=True)


def _time(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f}{NO_BREAK}ms"
    return f"{value:.1f}{NO_BREAK}s" if value >= 10 else f"{value:.2f}{NO_BREAK}s"
