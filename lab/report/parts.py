"""What a page is made of. The page and the Markdown show the same sections, part by part.

A part's `kind` is the name by which the templates know it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell that has a mark (a class of the stylesheet), or a second line."""

    text: str
    mark: str = ""
    small: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under headings. Columns in `texts`, by number, are text and may wrap; all others are numbers.

    `notes` explain headings; `folded`: shown only on demand; `even`: columns are equally wide;
    `stacked`: a row's cells stand below each other on a phone.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    texts: frozenset[int] = frozenset({0})
    notes: Sequence[tuple[str, str]] = ()
    folded: bool = False
    even: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Picture:
    """A plot; `name` is that of its file."""

    name: str
    svg: str
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Plots side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Beside:
    """A table with the picture of it, side by side where there is room."""

    kind: ClassVar[str] = "beside"
    table: Table
    picture: Picture


@dataclass(frozen=True)
class Says:
    """Sentences: a paragraph, or a list of them. `folded` is the summary of those shown only on demand."""

    kind: ClassVar[str] = "says"
    sentences: Sequence[str]
    listed: bool = False
    mark: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Download:
    """A file of data as a link that holds it; `href` is empty where it is too long for one."""

    file: str
    name: str
    href: str
    size: str


@dataclass(frozen=True)
class Downloads:
    """The raw data."""

    kind: ClassVar[str] = "downloads"
    files: Sequence[Download]


Part = Table | Pictures | Beside | Says | Heading | Downloads


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading of its own; `lacks` says which command makes what is not there."""

    slug: str
    title: str
    parts: Sequence[Part] = field(default_factory=tuple)
    lacks: str = ""


def cells(*texts: str | Cell) -> list[Cell]:
    """A row."""
    return [each if isinstance(each, Cell) else Cell(each) for each in texts]


def number(value: float | None) -> str:
    """A number in three digits or so."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def pictures(*found: tuple[str, str | None, str]) -> list[Part]:
    """Those of (name, SVG or None, caption) that there are, side by side."""
    there = [Picture(name, svg, caption) for name, svg, caption in found if svg is not None]
    return [Pictures(there)] if there else []
