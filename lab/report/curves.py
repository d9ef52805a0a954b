"""The curves of a comparison: latencies by share of the orders, and what came of each offered rate."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lab.compare.histograms import curve, decode_all
from lab.errors import LabError
from lab.plotting import INK, as_svg
from lab.report.documents import Capacity, Scenario, Step
from lab.report.panels import LINES, MARKS, SIZE, colour, legend, logarithmic, name, panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT_IN = 3.1
# Towards the tail in ever finer steps: the axis is that of 1 / (1 - share).
SHARES = (*range(1, 90), *(90 + step / 4 for step in range(36)), *(99 + step / 20 for step in range(19)))
TICKS = (50, 90, 99, 99.9)
FEWEST_BEYOND = 10  # orders: a percentile with fewer than these above it says nothing
DOTTED = (0, (1, 2))


def latency(scenario: Scenario, clock: str) -> str | None:
    """Which share of the orders took at most how long, by one clock; None if nobody kept it.

    All windows of an arm together; each of them thin beside. Raises `LabError` for a broken histogram.
    """
    figure, axes = panel(HEIGHT_IN)
    drawn = False
    for number, arm in enumerate(scenario.arms):
        told = [w.histograms[clock] for w in scenario.of(arm) if w.histograms.get(clock)]
        for one in told if len(told) > 1 else []:
            _tail(axes, _points([one], scenario.name), number, alpha=0.3, linewidth=0.7)
        if points := _points(told, scenario.name) if told else []:
            drawn = True
            _tail(axes, points, number, label=arm, linewidth=2)
    if not drawn:
        return None
    axes.set_xscale("log")
    logarithmic(axes)
    axes.set_xticks([100 / (100 - share) for share in TICKS], [f"{share:g}%" for share in TICKS])
    name(axes, "share of the orders", f"{clock} latency, ms")
    legend(axes)
    return as_svg(figure, f"{clock} latency by share of the orders: {scenario.title}")


def capacity_tail(found: Capacity) -> str:
    """Every rate that was tried, and the p99 of completion that it gave, with the objective."""
    figure, axes = panel(HEIGHT_IN)
    _trails(axes, found, lambda step: step.completion_p99_ms)
    if objective := found.objective.get("completion_p99_ms"):
        axes.axhline(objective, color=INK, linewidth=1, linestyle=DOTTED)
        axes.annotate(
            f"objective {objective:g} ms",
            (0.01, objective),
            (0, 3),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=INK,
            fontsize=SIZE,
        )
    logarithmic(axes)
    name(axes, "offered orders a second", "completion latency, p99, ms")
    return as_svg(figure, "Capacity: p99 of completion against the offered rate")


def capacity_rate(found: Capacity) -> str:
    """Every rate that was tried, and how many orders were completed a second."""
    figure, axes = panel(HEIGHT_IN)
    rates = [step.rate for search in found.searches for step in search.steps]
    if rates:
        ends = [min(rates), max(rates)]
        axes.plot(ends, ends, color=INK, linewidth=1, linestyle=DOTTED, label="all that is offered")
    _trails(axes, found, lambda step: step.completed_rate)
    axes.set_ylim(bottom=0)
    name(axes, "offered orders a second", "completed orders a second")
    return as_svg(figure, "Capacity: completed against offered rate")


def _points(told: Sequence[str], scenario: str) -> list[tuple[float, float]]:
    try:
        whole = decode_all(told)
    except LabError as error:
        raise LabError(f"compare.json, {scenario}: {error}") from error
    total = whole.get_total_count()
    return curve(whole, [share for share in SHARES if (100 - share) * total >= 100 * FEWEST_BEYOND])


def _tail(axes: "Axes", points: Sequence[tuple[float, float]], number: int, **how: Any) -> None:
    axes.plot(
        [100 / (100 - share) for share, _ in points],
        [ms for _, ms in points],
        LINES[number % len(LINES)],
        color=colour(number),
        **how,
    )


def _trails(axes: "Axes", found: Capacity, read: Callable[[Step], float | None]) -> None:
    """A line for each search over its rates; marks are rates that met the objective, crosses missed it."""
    arms = list(dict.fromkeys(search.arm for search in found.searches))
    for search in found.searches:
        number = arms.index(search.arm)
        told = sorted((step.rate, read(step) or 0.0, step.met) for step in search.steps if read(step))
        line, mark = LINES[number % len(LINES)], MARKS[number % len(MARKS)]
        axes.plot(
            [rate for rate, *_ in told],
            [value for _, value, _ in told],
            line,
            color=colour(number),
            lw=0.8,
            alpha=0.5,
        )
        for wanted, shape in ((True, mark), (False, "x")):
            kept = [(rate, value) for rate, value, met in told if met is wanted]
            axes.plot(
                [rate for rate, _ in kept],
                [value for _, value in kept],
                shape,
                color=colour(number),
                markersize=4,
            )
    for number, arm in enumerate(arms):
        line, mark = LINES[number % len(LINES)], MARKS[number % len(MARKS)]
        axes.plot([], [], line + mark, color=colour(number), markersize=4, label=arm)
    axes.plot([], [], "x", color=INK, markersize=4, label="objective missed")
    legend(axes)
