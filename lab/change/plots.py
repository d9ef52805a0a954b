"""The plot of one experiment: how service dips while a change is rolled out, as SVG to be put into a page."""

import math

from lab.change.found import SLOW_S, Found
from lab.plotting import INK, as_svg, plain
from lab.system import BROKER

BIN_S = 0.5
WIDTH_IN, HEIGHT_IN = 7.0, 2.1
SERVED, TOOK = "#2a8c5a", "#c0561f"


def dip(found: Found) -> str:
    """Of the orders due in each half second, the share completed within a second, and the longest time taken.

    Vertical lines are deployments, from the stop of the old process to the readiness of the new one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    axes = figure.subplots()
    times, shares, longest = _bins(found)
    axes.fill_between(times, shares, step="post", color=SERVED, alpha=0.35, linewidth=0)
    axes.step(times, shares, where="post", color=SERVED)
    axes.set_ylim(0, 119)
    axes.set_yticks([0, 50, 100])
    axes.set_ylabel(f"% within {SLOW_S:g} s", color=SERVED, fontsize=8)
    axes.set_xlabel("seconds; bands are deployments", color=INK, fontsize=8)
    other = axes.twinx()
    other.step(times, longest, where="post", color=TOOK, linewidth=1)
    other.set_ylim(0, max(2.0, *longest) * 1.2 if longest else 2.0)
    other.set_ylabel("longest, s", color=TOOK, fontsize=8)
    for each in [one for one in found.deployments if one.name != BROKER]:
        began, ready = each.began - found.began, each.ready - found.began
        axes.axvspan(began, ready, color=INK, alpha=0.12, linewidth=0)
        axes.text((began + ready) / 2, 108, each.name, ha="center", va="center", fontsize=6.5, color=INK)
    for side in (axes, other):
        plain(side)
    return as_svg(figure, f"Share of orders served in time while {found.scenario.title} on {found.arm.name}")


def _bins(found: Found) -> tuple[list[float], list[float], list[float]]:
    number = max(1, math.ceil((found.ended - found.began) / BIN_S))
    due: list[list[float]] = [[] for _ in range(number)]
    for fate in found.fates:
        took_s = math.inf if fate.completed is None else fate.completed - fate.intended
        due[min(number - 1, int((fate.intended - found.began) / BIN_S))].append(took_s)
    kept = [(index * BIN_S, took) for index, took in enumerate(due) if took]
    shares = [100 * sum(each <= SLOW_S for each in took) / len(took) for _, took in kept]
    longest = [max((each for each in took if each < math.inf), default=0.0) for _, took in kept]
    return [at for at, _ in kept], shares, longest
