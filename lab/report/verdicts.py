"""Verdicts as tables, pictures and sentences, and what they come to over all figures.

It repeats the verdicts that the data bring along. It refuses to make one of its own, or to add them up to a
winner.
"""

from collections.abc import Sequence

from lab.compare.verdicts import EQUIVALENT, MOST_TOLD, UNDECIDED, bound
from lab.report.bars import ratios
from lab.report.documents import Comparison, Figure, Scenario
from lab.report.parts import NONE, Beside, Cell, Heading, Part, Picture, Says, Section, Table, cells, number

BAND = (
    "The grey band is within 5% of each other; a hollow mark is undecided; an arrow says that it goes on "
    "beyond the axis."
)
HOW = (
    "Each ratio is the second arm's figure over the first arm's, with the interval in which it lies by the "
    "spread of the rounds, so wide that all intervals of a table hold together with 95%. An arm is better "
    "only where the whole interval lies beyond 5%; equivalent means wholly within; all else is undecided."
)


def verdict_section(compare: Comparison | None, lacks: str) -> Section:
    """What it comes to, then every scenario's figures."""
    if compare is None:
        return Section("verdicts", "Verdicts", lacks=lacks)
    parts: list[Part] = [Says(in_short(compare), listed=True), Says([HOW], mark="notes")]
    for each in compare.scenarios:
        parts.append(Heading(each.title))
        parts += scenario_parts(each, f"verdicts-{each.name}")
    if compare.capacity is not None:
        parts.append(Heading("Capacity"))
        parts += figure_parts([compare.capacity.figure], "Capacity: figures and verdict", "verdicts-capacity")
    return Section("verdicts", "Verdicts", parts)


def scenario_parts(scenario: Scenario, slug: str, folded: str = "") -> list[Part]:
    """One scenario: what it is, and its figures; `folded` is the summary that hides its sentences, if any."""
    parts: list[Part] = [Says([load_of(scenario)])]
    if scenario.figures:
        parts += figure_parts(scenario.figures, f"{scenario.title}: figures and verdicts", slug, folded)
    return parts


def figure_parts(figures: Sequence[Figure], caption: str, slug: str, folded: str = "") -> list[Part]:
    """A table, a picture and the sentences, for each two arms among the figures."""
    pairs = dict.fromkeys((each.a, each.b) for each in figures)
    parts: list[Part] = []
    for at, (a, b) in enumerate(pairs):
        told = [each for each in figures if (each.a, each.b) == (a, b)]
        title, name = caption, file_name(slug)
        if len(pairs) > 1:
            title, name = f"{caption}: {a}, {b}", file_name(slug, str(at + 1))
        shown = table(told, title)
        svg = ratios(told, [each.title for each in told], title)
        parts.append(
            shown
            if svg is None
            else Beside(shown, Picture(name, svg, f"{b[:1].upper()}{b[1:]}'s figures over {a}'s. {BAND}"))
        )
        parts.append(Says([each.sentence for each in told], listed=True, mark="small", folded=folded))
    return parts


def table(figures: Sequence[Figure], caption: str) -> Table:
    """The figures of two arms."""
    rows = [
        cells(
            f"{each.title}, {each.unit}",
            number(each.a_value),
            number(each.b_value),
            ratio(each),
            verdict(each),
        )
        for each in figures
    ]
    headings = ("figure", figures[0].a, figures[0].b, "ratio [interval]", "verdict")
    return Table(caption, headings, rows, frozenset({0, 4}), stacked=True)


def ratio(figure: Figure) -> str:
    """A ratio with its interval: `1.31 [1.22, 1.41]`."""
    told = figure.ratio
    return NONE if told is None else f"{bound(told.point)} [{bound(told.low)}, {bound(told.high)}]"


def verdict(figure: Figure) -> Cell:
    """A verdict in a few words."""
    if figure.verdict == EQUIVALENT:
        return Cell(EQUIVALENT, "told")
    if figure.verdict != UNDECIDED:
        return Cell(f"{figure.verdict} is better", "told")
    if figure.smallest is None:
        return Cell(UNDECIDED, "open")
    if figure.smallest >= MOST_TOLD:
        return Cell(UNDECIDED, "open", f"could not even tell {MOST_TOLD:g} times")
    return Cell(UNDECIDED, "open", f"could tell {figure.smallest:.2f} times or more")


def in_short(compare: Comparison) -> list[str]:
    """A sentence for each two arms of each scenario: which figures went to whom."""
    told = [(each.title, each.figures) for each in compare.scenarios]
    if compare.capacity is not None:
        told.append(("Capacity", [compare.capacity.figure]))
    sentences = []
    for title, figures in told:
        pairs = dict.fromkeys((each.a, each.b) for each in figures)
        for a, b in pairs:
            of = [each for each in figures if (each.a, each.b) == (a, b)]
            named = "" if len(pairs) == 1 else f", {a} and {b}"
            sentences.append(f"{title}{named}: {shares(of)}.")
    return sentences


def shares(figures: Sequence[Figure]) -> str:
    """Which figures each verdict has, the arms first."""
    arms = (figures[0].a, figures[0].b)
    told = []
    for verdict in (*arms, EQUIVALENT, UNDECIDED):
        of = [each.title for each in figures if each.verdict == verdict]
        if of:
            told.append(f"{f'{verdict} is better' if verdict in arms else verdict} in {joined(of)}")
    return ". ".join(each[0].upper() + each[1:] if at else each for at, each in enumerate(told))


def joined(titles: Sequence[str]) -> str:
    """Titles as one text: `ack latency (p50, p99), memory`."""
    found: dict[str, list[str]] = {}
    for title in titles:
        what, _, share = title.partition(", ")
        found.setdefault(what, []).append(share)
    return ", ".join(
        f"{what} ({', '.join(shares)})" if any(shares) else what for what, shares in found.items()
    )


def load_of(scenario: Scenario) -> str:
    """What the scenario is, and how it was measured, in one or two sentences."""
    simulated = [f"{name} takes {time}" for name, time in scenario.service_time.items()]
    simulated += [f"{name} fails {share} of the tries" for name, share in scenario.error_rate.items()]
    told = ", ".join(simulated)
    system = "a fresh system for each window" if scenario.fresh_systems else "one system for all windows"
    what = scenario.what[:1].upper() + scenario.what[1:].rstrip(".")
    return (
        f"{what}{f' ({told})' if told else ''}. "
        f"{scenario.rate:g} orders a second, {scenario.pairs} rounds of {scenario.window_s:g} s for each arm "
        f"after {scenario.warm_up_s:g} s of warm-up, on {system}."
    )


def file_name(*words: str) -> str:
    """The name of a picture's file."""
    joined = "-".join(word for word in words if word).lower()
    return f"{''.join(letter if letter.isalnum() else '-' for letter in joined)}.svg"
