"""The data of a report: what the lab's commands have left in a folder, read back as they wrote it.

It refuses a file that is something else, rather than to show half of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError

COMPARE, FAULTS, CHANGES = "compare.json", "faults.json", "changes.json"
MAKES = {COMPARE: "duet compare --full", FAULTS: "duet faults", CHANGES: "duet change all"}
WANTED = {
    COMPARE: ("scenarios", "setting", "troubles"),
    FAULTS: ("arms", "faults", "cells", "setting"),
    CHANGES: ("experiments", "setting"),
}

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Data:
    """What there is; None where a command has not run. `raw` are the files themselves, by name."""

    compare: Document | None
    faults: Document | None
    changes: Document | None
    raw: Mapping[str, bytes]


def read(folder: Path) -> Data:
    """Everything in the folder. Raises `LabError` where there is nothing, or a file is no such document."""
    raw = {name: (folder / name).read_bytes() for name in MAKES if (folder / name).is_file()}
    if not raw:
        ways = ", ".join(f"{command} --out {folder}" for command in MAKES.values())
        raise LabError(f"{folder} holds no data to report: make some with {ways}")
    documents = {name: _parse(folder / name, content, WANTED[name]) for name, content in raw.items()}
    return Data(documents.get(COMPARE), documents.get(FAULTS), documents.get(CHANGES), raw)


def _parse(file: Path, content: bytes, wanted: tuple[str, ...]) -> Document:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise LabError(
            f"{file} is no JSON document: {error}; make it anew with {MAKES[file.name]}"
        ) from error
    missing = [key for key in wanted if not isinstance(document, dict) or key not in document]
    if missing:
        raise LabError(f"{file} has no {', '.join(missing)}: make it anew with {MAKES[file.name]}")
    parsed: Document = document
    return parsed
