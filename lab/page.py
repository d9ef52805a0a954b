"""What the pages of all reports have in common: one template and stylesheet, and how their text is escaped.

A page is one file of HTML that needs nothing else: no script, no font, no picture from elsewhere.
"""

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape


def environment(package: str) -> Environment:
    """Where the templates of `package` are found, and `page.html`, which they extend."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("lab")]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["code"] = with_code
    made.filters["cell"] = as_cell
    return made


def with_code(text: str) -> Markup:
    """What stands between backquotes, as code; all of it escaped."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def as_cell(text: str) -> str:
    """Text for a cell of a Markdown table, or a line: nothing in it ends the cell or begins a tag."""
    return re.sub(r"\s*\n\s*", " ", text).replace("|", "\\|").replace("<", "&lt;")
