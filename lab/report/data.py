"""The data of a report: what is in a folder, read back as the lab's commands wrote it.

It refuses a file that is something else, or lacks what the page shows, rather than to show half of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from lab.errors import LabError
from lab.report.documents import Changes, Comparison, Faults

COMPARE, FAULTS, CHANGES = "compare.json", "faults.json", "changes.json"
MAKES = {COMPARE: "duet compare --full", FAULTS: "duet faults", CHANGES: "duet change all"}


@dataclass(frozen=True)
class Data:
    """What there is; None where a command has not run. `raw` are the files themselves, by name."""

    compare: Comparison | None
    faults: Faults | None
    changes: Changes | None
    raw: Mapping[str, bytes]


Kind = TypeVar("Kind", Comparison, Faults, Changes)


def read(folder: Path) -> Data:
    """Everything in the folder. Raises `LabError` where there is nothing, or a file is no such document."""
    try:
        raw = {name: (folder / name).read_bytes() for name in MAKES if (folder / name).exists()}
    except OSError as error:
        raise LabError(f"cannot read {error.filename}: {error.strerror}") from error
    if not raw:
        ways = ", ".join(f"{command} --out {folder}" for command in MAKES.values())
        raise LabError(f"{folder} holds no data to report: make some with {ways}")
    return Data(
        _parse(folder / COMPARE, raw, Comparison),
        _parse(folder / FAULTS, raw, Faults),
        _parse(folder / CHANGES, raw, Changes),
        raw,
    )


def _parse(file: Path, raw: Mapping[str, bytes], kind: type[Kind]) -> Kind | None:
    if file.name not in raw:
        return None
    again = f"make it anew with {MAKES[file.name]} --out {file.parent}"
    try:
        # NaN and Infinity are no JSON: what somebody could not compute is not known.
        return kind.model_validate(json.loads(raw[file.name], parse_constant=lambda _: None))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole"
        told = f"{file} is not what this report reads: {where}: {first['msg'].lower()}"
        raise LabError(f"{told}; {again}") from error
    except (ValueError, RecursionError) as error:
        raise LabError(f"{file} is no JSON document: {error}; {again}") from error
