"""Writes the page, the same in Markdown with its pictures, and the decision record.

The same data give the same bytes. It refuses to overwrite a decision record: a team may have written in it.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.page import environment
from lab.plotting import as_file
from lab.report.changed import change_section
from lab.report.data import Data, read
from lab.report.decision import record
from lab.report.measured import (
    aa_section,
    ablation_section,
    capacity_section,
    claim_section,
    cost_section,
    latency_section,
)
from lab.report.parts import Beside, Picture, Pictures, Section
from lab.report.raw import raw_section
from lab.report.told import not_said_section, outcomes, setting_section, what_was_compared, words_section
from lab.report.troubled import fault_section
from lab.report.verdicts import verdict_section

TITLE = "Orchestration and choreography, compared"
PAGE, MARKDOWN, PICTURES = "report.html", "report.md", "pictures"
RECORD = "decision.md"
MOST_RECORDS = 99
QUICK, FULL = "duet compare --out DIR", "duet compare --full --out DIR"
FAULTS, CHANGES = "duet faults --out DIR", "duet change all --out DIR"


def write(folder: Path, *, decision: bool) -> list[Path]:
    """Write all into `folder`; the files written, the page first, without the pictures. Raises `LabError`."""
    data = read(folder)
    told = sections(data)
    words = {
        "title": TITLE,
        "compared": what_was_compared(data),
        "outcomes": outcomes(data),
        "sections": told,
    }
    templates = environment("lab.report")
    texts = {
        PAGE: templates.get_template(PAGE).render(words),
        MARKDOWN: tidy(templates.get_template(MARKDOWN).render(words)),
    }
    if decision:
        text = tidy(templates.get_template(RECORD).render(record(data)))
        texts[_free_name(folder, text)] = text
    pictures = {f"{PICTURES}/{each.name}": as_file(each.svg) for each in drawn(told)}
    try:
        (folder / PICTURES).mkdir(exist_ok=True)
        for name, text in {**texts, **pictures}.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {error.filename}: {error.strerror}") from error
    return [folder / name for name in texts]


def sections(data: Data) -> list[Section]:
    """All sections, in the order of the page. Raises `LabError` for a histogram that cannot be read."""
    compare = data.compare
    return [
        verdict_section(compare, QUICK),
        latency_section(compare, QUICK),
        capacity_section(compare, FULL),
        cost_section(compare, QUICK),
        fault_section(data.faults, FAULTS),
        change_section(data.changes, CHANGES),
        ablation_section(compare, FULL),
        aa_section(compare, FULL),
        claim_section(compare, FULL),
        setting_section(data),
        not_said_section(data),
        raw_section(data.raw),
        words_section(),
    ]


def drawn(told: Sequence[Section]) -> list[Picture]:
    """Every picture of these sections."""
    found: list[Picture] = []
    for part in (part for section in told for part in section.parts):
        if isinstance(part, Pictures):
            found += part.pictures
        elif isinstance(part, Beside):
            found.append(part.picture)
    return found


def tidy(text: str) -> str:
    """Markdown without spaces at the ends of lines, and with one empty line at most."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip() + "\n"


def _free_name(folder: Path, text: str) -> str:
    """The first name of a decision record that is free, or holds just this text."""
    for number in range(1, MOST_RECORDS + 1):
        file = folder / (RECORD if number == 1 else f"decision-{number}.md")
        if not file.exists() or file.read_bytes() == text.encode():
            return file.name
    raise LabError(f"{folder} holds {MOST_RECORDS} decision records: move them away")
