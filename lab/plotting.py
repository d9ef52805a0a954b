"""Figures as SVG for a page: what is drawn in the page's own colour follows it into light, dark and print.

The same data give the same bytes: no ids from random numbers, no date.
"""

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib knows no `currentColor`: this one stands for it, and is replaced in what it wrote.
INK = "#010203"


def plain(axes: "Axes") -> None:
    """Axes in the page's own colour, without a background."""
    axes.tick_params(colors=INK, labelsize=7, which="both")
    axes.set_facecolor("none")
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_alpha(0.4)


def as_svg(figure: "Figure", title: str) -> str:
    """The figure as an SVG element that takes the width of its place; `title` is its accessible name."""
    import matplotlib

    figure.patch.set_alpha(0)
    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Title": title})
    text = target.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
