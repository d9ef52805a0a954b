"""The plots of a comparison, as SVG by name; arms differ in line and hatch, too, since print may be grey."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.compare.histograms import curve, decode_all
from lab.plotting import INK, as_svg, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Document = Mapping[str, Any]

COLOURS = ("#3572b0", "#c0561f", "#2a8c5a", "#8a4fb0")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "++", "oo", "--")
PARTS = ("#3572b0", "#c0561f", "#2a8c5a", "#8a4fb0", "#b08a1e", "#5f6b76", "#b03a6a", "#2a8c8c")
SHARES = [*range(1, 90), *(90 + step / 4 for step in range(39)), 99.8, 99.9]
TICKS = (50, 90, 99, 99.9)
CLOCKS = (("ack", "until the 2xx"), ("completion", "until the last effect"))


def pictures(compare: Document) -> dict[str, str]:
    """Every plot that a comparison has data for, by its file's name."""
    found = {file_name(each["name"]): latency(each) for each in compare["scenarios"]}
    if compare.get("capacity"):
        found["capacity.svg"] = capacity(compare["capacity"])
    if cost := costs(compare["scenarios"]):
        found["cost.svg"] = cost
    return found


def latency(scenario: Document) -> str:
    """Both clocks: which share of the orders took at most how long, all windows of an arm together."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, (clock, meaning) in zip(figure.subplots(1, 2, sharey=True), CLOCKS, strict=True):
        for number, arm in enumerate(scenario["arms"]):
            told = [w["histograms"][clock] for w in scenario["windows"] if w["arm"] == arm]
            points = curve(decode_all(told), SHARES)
            _line(axes, [ms for _, ms in points], [100 / (100 - share) for share, _ in points], arm, number)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_yticks([100 / (100 - share) for share in TICKS], [f"{share:g} %" for share in TICKS])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(f"{clock}, ms ({meaning})", color=INK, fontsize=8)
        _dress(axes)
    figure.axes[0].set_ylabel("share of orders", color=INK, fontsize=8)
    _legend(figure.axes[0])
    return as_svg(figure, f"Latency of {scenario['title']}")


def capacity(found: Document) -> str:
    """Every rate that was tried: p99 of completion over what was offered; crosses missed the objective."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    arms = list(dict.fromkeys(search["arm"] for search in found["searches"]))
    for number, arm in enumerate(arms):
        steps = [step for search in found["searches"] if search["arm"] == arm for step in search["steps"]]
        known = sorted((s for s in steps if s["completion_p99_ms"]), key=lambda s: float(s["rate"]))
        for met, marker in ((True, "o"), (False, "x")):
            told = [step for step in known if step["met"] is met]
            axes.plot(
                [step["rate"] for step in told],
                [step["completion_p99_ms"] for step in told],
                marker,
                color=COLOURS[number % len(COLOURS)],
                markersize=4,
                label=f"{arm}, {'met' if met else 'missed'}",
            )
    objective = found["objective"]["completion_p99_ms"]
    axes.axhline(objective, color=INK, linewidth=0.8, linestyle=":")
    axes.text(0.995, objective, "objective ", transform=axes.get_yaxis_transform(), ha="right", va="bottom",
              color=INK, fontsize=7)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlabel("offered orders a second", color=INK, fontsize=8)
    axes.set_ylabel("p99 of completion, ms", color=INK, fontsize=8)
    _dress(axes)
    _legend(axes)
    return as_svg(figure, "Capacity: p99 of completion against the offered rate")


def costs(scenarios: Sequence[Document]) -> str | None:
    """CPU time of an order by process, a bar for each arm of each scenario; None if it is not known."""
    from matplotlib.figure import Figure

    bars = [(f"{arm}\n{each['title']}", _mean_cpu(each, arm)) for each in scenarios for arm in each["arms"]]
    bars = [(name, cpu) for name, cpu in bars if cpu]
    if not bars:
        return None
    processes = list(dict.fromkeys(process for _, cpu in bars for process in cpu))
    figure = Figure(figsize=(8, 0.7 + 0.55 * len(bars)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(bars)
    for number, process in enumerate(processes):
        widths = [cpu.get(process, 0.0) for _, cpu in bars]
        axes.barh(
            range(len(bars)),
            widths,
            left=left,
            color=PARTS[number % len(PARTS)],
            hatch=HATCHES[number % len(HATCHES)],
            edgecolor="#ffffff",
            linewidth=0.4,
            label=process,
        )
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("CPU ms for each completed order", color=INK, fontsize=8)
    _dress(axes)
    _legend(axes, outside=True)
    return as_svg(figure, "CPU time of an order by process")


def _mean_cpu(scenario: Document, arm: str) -> dict[str, float]:
    windows = [w["cpu_ms"] for w in scenario["windows"] if w["arm"] == arm and w["cpu_ms"]]
    names = dict.fromkeys(name for each in windows for name in each if name != "generator")
    return {name: sum(each.get(name, 0.0) for each in windows) / len(windows) for name in names}


def _line(axes: "Axes", x: list[float], y: list[float], label: str, number: int) -> None:
    colour, style = COLOURS[number % len(COLOURS)], LINES[number % len(LINES)]
    axes.plot(x, y, style, color=colour, label=label, linewidth=1.6)


def _dress(axes: "Axes") -> None:
    plain(axes)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(axes: "Axes", *, outside: bool = False) -> None:
    where: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if outside else {}
    axes.legend(fontsize=7, frameon=False, labelcolor=INK, **where)


def file_name(scenario: str) -> str:
    """The file of a scenario's latency plot."""
    return f"latency-{''.join(letter if letter.isalnum() else '-' for letter in scenario)}.svg"
