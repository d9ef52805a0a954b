"""What the plots of a comparison have in common: a narrow panel, and how arms are told apart.

A panel is as narrow as a phone, so that its text is as large there as it was drawn; a wide page puts two of
them side by side. Arms differ in line, mark and hatch as well as in colour: print may be grey. The colours
have a contrast of 3 to 1 on white and on a dark page; all text is in the page's own.
"""

from typing import TYPE_CHECKING

from lab.plotting import INK, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

WIDTH_IN = 4.7  # 338 units: a phone's page, less its margins
SIZE = 10
COLOURS = ("#3b78bd", "#c8641e", "#2e8f63", "#9560b8")
LINES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D")
PARTS = ("#3b78bd", "#c8641e", "#2e8f63", "#9560b8", "#a3801a", "#6b7885", "#bd4a78", "#2a8c8c")
HATCHES = ("", "///", "\\\\\\", "|||", "---", "xx", "++", "//")


def panel(height_in: float) -> tuple["Drawing", "Axes"]:
    """An empty panel, so many inches high."""
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    plain(axes, SIZE)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def colour(number: int) -> str:
    """The colour of an arm, by its place."""
    return COLOURS[number % len(COLOURS)]


def name(axes: "Axes", x: str, y: str = "") -> None:
    """What the axes are, with their units."""
    axes.set_xlabel(x, color=INK, fontsize=SIZE)
    if y:
        axes.set_ylabel(y, color=INK, fontsize=SIZE)


def logarithmic(axes: "Axes") -> None:
    """A log axis upwards, with 1, 2 and 5 of each decade: a short one may hold no decade."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")


def note(axes: "Axes", text: str, x: float, y: float) -> None:
    """A text just right of a point."""
    axes.annotate(text, (x, y), (3, 0), textcoords="offset points", va="center", color=INK, fontsize=SIZE)


def legend(axes: "Axes", columns: int = 2) -> None:
    """Above the panel, from the picture's left edge, so that it hides nothing and nothing of it is cut."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        fontsize=SIZE,
        frameon=False,
        labelcolor=INK,
        loc="outside upper left",
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.2,
        columnspacing=1,
    )
