"""Writes the report: one page of HTML that needs nothing else, the same in Markdown, and a decision record.

The verdicts come first. It refuses a verdict over the styles as a whole: which figure matters is the team's
to say.
"""

import base64
import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from lab.errors import LabError
from lab.report import figures, tables
from lab.report.data import MAKES, Data, Document, read

PAGE, MARKDOWN, RECORD = "report.html", "report.md", "decision.md"
PICTURES = "pictures"
NOT_SAID = (
    "It compares orchestration over HTTP with choreography over NATS JetStream, as this project builds them, "
    "not synchronous with asynchronous in general.",
    "All processes share one machine: no network lies between them, and two saturated cores mostly compare "
    "CPU cost.",
    "Absolute times hold for this machine and this disk only; ratios carry over better, and not for certain.",
    "A verdict is about one figure: which one matters, and what a team can run and understand, it leaves open.",
    "Orders are placed for minutes, not for months: how databases and streams grow is not measured.",
)


def write(folder: Path, *, decision: bool) -> list[Path]:
    """Render everything into `folder`. Raises `LabError` where data are missing or cannot be written."""
    data = read(folder)
    pictures = figures.pictures(data.compare) if data.compare else {}
    environment = _environment()
    told = _told(data, pictures)
    names = [PAGE, MARKDOWN, *([RECORD] if decision and data.compare else [])]
    if decision and not data.compare:
        raise LabError(f"a decision record wants a comparison: duet compare --full --out {folder}")
    try:
        (folder / PICTURES).mkdir(exist_ok=True)
        for name, svg in pictures.items():
            (folder / PICTURES / name).write_text(svg)
        for name in names:
            (folder / name).write_text(environment.get_template(name).render(told))
    except OSError as error:
        raise LabError(f"cannot write the report into {folder}: {error}") from error
    return [*(folder / name for name in names), *(folder / PICTURES / name for name in pictures)]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lab.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    return environment


def _told(data: Data, pictures: Mapping[str, str]) -> dict[str, Any]:
    compare, faults, changes = data.compare, data.faults, data.changes
    setting = next(each["setting"] for each in (compare, faults, changes) if each)
    return {
        "compare": compare,
        "faults": faults,
        "changes": changes,
        "makes": MAKES,
        "setting": setting,
        "commands": [each["command"] for each in (compare, faults) if each],
        "chapters": _chapters(compare, pictures) if compare else [],
        "pictures": {name: Markup(svg) for name, svg in pictures.items()},  # noqa: S704 - made by ourselves
        "picture_folder": PICTURES,
        "per_order": tables.per_order(compare["scenarios"]) if compare else None,
        "capacity": _capacity(compare),
        "ablations": tables.ablations(compare["ablations"]) if compare and compare["ablations"] else None,
        "matrix": tables.faults(faults) if faults else None,
        "times": tables.fault_times(faults) if faults else None,
        "cost_of_change": tables.changes(changes) if changes else None,
        "not_said": NOT_SAID,
        "downloads": [
            {"name": f"{name}.gz", "bytes": len(content), "url": _download(content)}
            for name, content in data.raw.items()
        ],
    }


def _chapters(compare: Document, pictures: Mapping[str, str]) -> list[dict[str, Any]]:
    """A chapter for each scenario, and one for the run of an arm against itself."""
    found = []
    for each, kind in [
        *((each, "scenario") for each in compare["scenarios"]),
        *((each, "extra") for each in compare.get("extra", [])),
        *([(compare["aa"], "aa")] if compare["aa"] else []),
    ]:
        picture = figures.file_name(each["name"])
        found.append(
            {
                "kind": kind,
                "scenario": each,
                "table": tables.verdicts(each),
                "sentences": [figure["sentence"] for figure in each["figures"]],
                "picture": picture if picture in pictures else None,
            }
        )
    return found


def _capacity(compare: Document | None) -> dict[str, Any] | None:
    if not compare or not compare["capacity"]:
        return None
    found = compare["capacity"]
    return {
        "table": tables.verdict_table([found["figure"]]),
        "sentence": found["figure"]["sentence"],
        "objective_ms": found["objective"]["completion_p99_ms"],
    }


def _download(content: bytes) -> str:
    packed = gzip.compress(content, mtime=0)
    return "data:application/gzip;base64," + base64.b64encode(packed).decode("ascii")
