"""Figures as SVG for a page: what is drawn in the page's own colour follows it into light, dark and print.

The same data give the same bytes: no ids from random numbers, no date. Several of them may stand in one page,
since no id that a figure of another title could have is left.
"""

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib knows no `currentColor`: this one stands for it, and is replaced in what it wrote.
INK = "#010203"
# A picture in a file has no page to take its colours from. Readers of dark pages see it on its own ground.
ON_ITS_OWN = (
    "<style>svg{color:#1f2328;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}</style>"
)


def plain(axes: "Axes", size: float = 7) -> None:
    """Axes in the page's own colour, without a background; `size` is of the ticks' labels, in points."""
    axes.tick_params(colors=INK, labelsize=size, which="both")
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
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    referred = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", text)
    return text.replace("<svg ", '<svg role="img" ', 1)


def as_file(svg: str) -> str:
    """The same as a file of its own, readable in light and dark."""
    if "<style" in svg and "background" in svg:
        return svg  # it brings its own ground
    at = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:at]}\n{ON_ITS_OWN}{svg[at:]}"
