"""What an order costs, as bars, and ratios with their intervals, as rows."""

import statistics
from collections.abc import Sequence

from lab.plotting import INK, as_svg
from lab.report.documents import Figure, Ratio, Scenario
from lab.report.panels import HATCHES, MARKS, PARTS, colour, legend, name, note, panel

MARGIN = 1.05
LONG = 32  # letters that fit under a panel
LEAST, MOST = 0.05, 20.0  # ratios beyond these are drawn at the edge
TICKS = (
    (0.8, 0.9, 1, 1.1, 1.25),
    (0.5, 0.7, 0.85, 1, 1.2, 1.5, 2),
    (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5),
    (0.05, 0.2, 1, 5, 20),
)
COUNTS = {
    "calls_per_order": "HTTP calls",
    "messages_per_order": "messages",
    "deliveries_per_order": "deliveries",
}


def costs(scenario: Scenario) -> str | None:
    """CPU time of an order, stacked by process, a bar for each arm; None if it is not known."""
    spent = {arm: mean_cpu(scenario, arm) for arm in scenario.arms}
    arms = [arm for arm in scenario.arms if spent[arm]]
    processes = list(dict.fromkeys(process for arm in arms for process in spent[arm]))
    if not processes:
        return None
    figure, axes = panel(0.75 + 0.45 * len(arms) + 0.2 * -(-len(processes) // 3))
    left = [0.0] * len(arms)
    for number, process in enumerate(processes):
        widths = [spent[arm].get(process, 0.0) for arm in arms]
        axes.barh(
            range(len(arms)),
            widths,
            left=left,
            height=0.62,
            color=PARTS[number % len(PARTS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="#ffffff",
            linewidth=0.5,
            label=process,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        note(axes, f"{total:.2f}", total, row)
    axes.set_xlim(0, max(*left, 0.1) * 1.17)
    axes.set_yticks(range(len(arms)), [_broken(arm) for arm in arms])
    axes.invert_yaxis()
    name(axes, "CPU time of an order, ms")
    legend(axes, columns=3)
    return as_svg(figure, f"CPU time of an order by process: {scenario.title}")


def counts(scenario: Scenario) -> str | None:
    """HTTP calls, published messages and deliveries of an order, a bar for each arm; None if not known."""
    values = {
        arm: [mean([getattr(w, kind) for w in scenario.of(arm)]) for kind in COUNTS] for arm in scenario.arms
    }
    arms = [arm for arm in scenario.arms if any(value is not None for value in values[arm])]
    if not arms:
        return None
    figure, axes = panel(0.9 + 0.2 * len(COUNTS) * len(arms))
    height = 0.8 / len(arms)
    for number, arm in enumerate(arms):
        at = [row + (number - (len(arms) - 1) / 2) * height for row in range(len(COUNTS))]
        axes.barh(
            at,
            [value or 0.0 for value in values[arm]],
            height=height * 0.9,
            color=colour(number),
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="#ffffff",
            linewidth=0.5,
            label=arm,
        )
        for y, value in zip(at, values[arm], strict=True):
            note(axes, "unknown" if value is None else f"{value:.3g}", value or 0.0, y)
    axes.set_xlim(0, max([0.1, *(value for arm in arms for value in values[arm] if value)]) * 1.2)
    axes.set_yticks(range(len(COUNTS)), list(COUNTS.values()))
    axes.invert_yaxis()
    name(axes, "for each order")
    legend(axes)
    return as_svg(figure, f"Calls and messages of an order: {scenario.title}")


def ratios(figures: Sequence[Figure], names: Sequence[str], title: str) -> str | None:
    """Ratios with their intervals on a log axis, a row for each; the band is within five per cent.

    None if none has a ratio. Hollow: undecided. An arrow: it goes on beyond the axis. `title` is the
    picture's accessible name.
    """
    rows = [(row, each, each.ratio) for row, each in zip(names, figures, strict=True) if each.ratio]
    if not rows:
        return None
    figure, axes = panel(0.75 + (0.42 if any("\n" in name for name in names) else 0.3) * len(rows))
    axes.axvspan(1 / MARGIN, MARGIN, color=INK, alpha=0.13, linewidth=0)
    axes.axvline(1, color=INK, linewidth=0.8)
    ends = [1 / MARGIN**2, MARGIN**2]
    for row, (_, each, told) in enumerate(rows):
        low, point, high = (min(max(bound, LEAST), MOST) for bound in (told.low, told.point, told.high))
        ends += [low, high]
        number = {each.a: 0, each.b: 1}.get(each.verdict)
        ink = INK if number is None else colour(number)
        axes.plot([low, high], [row, row], color=ink, linewidth=2, solid_capstyle="butt")
        if LEAST < told.point < MOST:
            axes.plot(
                [point],
                [row],
                "D" if number is None else MARKS[number],
                color=ink,
                markersize=7,
                markerfacecolor="none" if each.verdict == "undecided" else ink,
            )
        for end, arrow in arrows(told):
            axes.plot([end], [row], arrow, color=ink, markersize=9, clip_on=False)
    axes.set_xscale("log")
    least, most = min(ends) / 1.06, max(ends) * 1.06
    axes.set_xlim(least, most)
    axes.minorticks_off()
    fitting = next((ticks for ticks in TICKS if ticks[0] <= least and most <= ticks[-1]), TICKS[-1])
    axes.set_xticks([tick for tick in fitting if least <= tick <= most])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(rows)), [row for row, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    a, b = rows[0][1].a, rows[0][1].b
    name(axes, f"{b} / {a}" if len(a + b) < LONG else f"{b}\n/ {a}")
    return as_svg(figure, title)


def arrows(ratio: Ratio) -> list[tuple[float, str]]:
    """Where an interval goes on beyond the axis, and which way."""
    ends = [(LEAST, "<")] if ratio.low < LEAST else []
    return [*ends, (MOST, ">")] if ratio.high > MOST else ends


def mean_cpu(scenario: Scenario, arm: str) -> dict[str, float]:
    """CPU time in ms of an order by process, the generator's left out, over the arm's windows."""
    windows = [w.cpu_ms for w in scenario.of(arm) if w.cpu_ms]
    processes = dict.fromkeys(process for each in windows for process in each if process != "generator")
    return {each: statistics.fmean(one.get(each, 0.0) for one in windows) for each in processes}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _broken(arm: str) -> str:
    """A long name over two lines."""
    return arm if len(arm) < 16 else "\n".join(arm.split(" ", 1))
