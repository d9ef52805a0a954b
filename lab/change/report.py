"""What the experiments come to: one page of HTML that needs nothing else, and the same in Markdown.

The figures that a patch alone decides come first, then those that were measured. It refuses a verdict over
both styles: which of the columns matters is for the reader's team to say.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.change import coupling
from lab.change.found import SLOW_S, Found
from lab.change.plots import dip
from lab.change.scenarios import Arm
from lab.coupling.drawing import draw
from lab.page import environment
from lab.plotting import as_file

COLUMNS = (
    ("ES", "existing services changed besides the one that the change is about"),
    ("P", "further existing services of which only the shared plumbing changed"),
    ("F", "files of the product touched outside the new service"),
    ("L", "lines added and deleted in them, over all stages"),
    (
        "K",
        "contracts of the style that are another now: REST or event documents, checkout's REST in both",
    ),
    ("stages", "steps of the rollout, each to be finished before the next may begin"),
    ("R", "restarts of existing services"),
    ("X", "existing services in lock-step: they are deployed in the order of the stages"),
    ("refused", "orders that were not accepted at the first try; all others were, at a later one"),
    ("slow", f"orders that took over {SLOW_S:g} s from when they were to leave"),
    ("longest", "the longest time that an order took, in seconds"),
    ("lost", "accepted orders that are unknown, or lack an effect, in the end"),
    ("doubled", "effects too many, in the end"),
    ("by hand", "orders that needed `duet stuck retry`"),
)


@dataclass(frozen=True)
class Row:
    """One experiment as a row: its name, and a cell for each of `COLUMNS`."""

    name: str
    cells: tuple[str, ...]
    sound: bool


def arm_name(arm: Arm, careless: str) -> str:
    """What a row is called."""
    return f"{arm.name}, careless ({careless.replace('_', ' ')})" if careless else arm.name


def row(found: Found) -> Row:
    """The figures of one experiment."""
    if found.error:
        return Row(arm_name(found.arm, found.careless), ("–",) * len(COLUMNS), sound=False)
    cells = (
        len(found.existing_changed),
        len(found.plumbing_changed),
        len(found.product),
        sum(each.lines for each in found.product),
        len(found.contracts),
        min(1, len(found.arm.rollout)) if found.careless else len(found.arm.rollout),
        found.restarts,
        found.lock_step,
        found.refused,
        found.slow,
        f"{found.worst_s:.1f}",
        found.lost,
        found.duplicated,
        found.retried_by_hand,
    )
    return Row(arm_name(found.arm, found.careless), tuple(str(cell) for cell in cells), found.sound)


def document(found: Sequence[Found], setting: dict[str, Any]) -> dict[str, Any]:
    """Everything as plain data."""
    return {"setting": setting, "experiments": [_plain(each) for each in found]}


def write(found: Sequence[Found], setting: dict[str, Any], out: Path) -> list[Path]:
    """Write the page, the Markdown with its pictures, and the data; the files written. Raises `OSError`."""
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {
        "chapters": _chapters(found),
        "columns": COLUMNS,
        "setting": setting,
        "learnt": coupling.learnt(found),
    }
    templates = environment("lab.change")
    written = []
    for chapter in told["chapters"]:
        for experiment in chapter["experiments"]:
            for name, svg in experiment["pictures"].items():
                file = pictures / name
                file.write_text(as_file(svg))
                written.append(file)
    for name in ("changes.html", "changes.md"):
        file = out / name
        file.write_text(templates.get_template(name).render(told))
        written.append(file)
    data = out / "changes.json"
    data.write_text(json.dumps(document(found, setting), indent=1) + "\n")
    return [*written, data]


def _chapters(found: Sequence[Found]) -> list[dict[str, Any]]:
    chapters: dict[str, dict[str, Any]] = {}
    for each in found:
        scenario = each.scenario
        chapter = chapters.setdefault(
            scenario.slug,
            {
                "number": f"{scenario.number:g}",
                "slug": scenario.slug,
                "title": scenario.title,
                "story": scenario.story,
                "experiments": [],
            },
        )
        chapter["experiments"].append(_experiment(each))
    return list(chapters.values())


def said(found: Found) -> list[str]:
    """What is to be told of one experiment besides its figures, in sentences."""
    if found.error:
        return [f"It could not be carried out: {found.error.rstrip('.')}."]
    sentences = [f"{str(found.proof.get('what', 'Nothing was shown')).rstrip('.')}."]
    if found.backfill is not None:
        given = " of ".join(str(found.backfill.get(key, "?")) for key in ("given", "orders"))
        how = str(found.backfill.get("how", found.backfill.get("what", "?"))).rstrip(".")
        sentences.append(f"Orders from before: {how} ({given}).")
    if found.contracts:
        sentences.append(f"Contracts changed: {', '.join(found.contracts)}.")
    if found.base:
        base = [each for each in found.base if each.is_product]
        lines = sum(each.lines for each in base)
        sentences.append(f"To get to this arm took {len(base)} files and {lines} lines before.")
    if not found.sound:
        sentences.append(f"Not sound: {_why(found)}.")
    return sentences


def _why(found: Found) -> str:
    books = {key: value for key, value in found.audit.items() if key not in ("services", "styles")}
    return json.dumps({"audit": books, "not accepted": found.not_accepted[:3]})


def _experiment(found: Found) -> dict[str, Any]:
    name = f"{found.scenario.slug}-{found.arm.name}{found.careless and f'-{found.careless}'}"
    pictures = {} if found.error else {f"{name}-dip.svg": dip(found)}
    if found.before is not None and found.after is not None and not found.careless:
        before, after = draw(found.before, found.after)
        pictures |= {f"{name}-before.svg": before, f"{name}-after.svg": after}
    return {
        "row": row(found),
        "said": said(found),
        "coupling": coupling.compare(found),
        "orders": len(found.fates),
        "pictures": pictures,
        "files": [each for each in found.product if each.lines],
        "deployments": len(found.deployments),
    }


def _plain(found: Found) -> dict[str, Any]:
    told = row(found)
    return {
        "scenario": found.scenario.slug,
        "number": found.scenario.number,
        "arm": found.arm.name,
        "careless": found.careless,
        "sound": told.sound,
        "figures": dict(zip([name for name, _ in COLUMNS], told.cells, strict=True)),
        "orders": len(found.fates),
        "rate_per_s": found.rate,
        "generator_lag_s": round(found.lag_s, 3),
        "existing_changed": found.existing_changed,
        "contracts": found.contracts,
        "plumbing_changed": found.plumbing_changed,
        "error": found.error,
        "files": [[each.path, each.added, each.deleted] for each in found.touched],
        "deployments": [
            [each.stage, each.name, round(each.began - found.began, 3), round(each.ready - found.began, 3)]
            for each in found.deployments
        ],
        "proof": found.proof,
        "backfill": found.backfill,
        "audit": {key: value for key, value in found.audit.items() if key != "ids"},
        "coupling": {
            "before": found.before and found.before.as_document(),
            "after": found.after and found.after.as_document(),
            "seen_before": found.seen_before and found.seen_before.as_document(),
            "seen_after": found.seen_after and found.seen_after.as_document(),
        },
    }
