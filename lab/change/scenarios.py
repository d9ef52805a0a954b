"""The change scenarios: folders below `changes/`, each with a series of patches for every arm.

An arm is a way to collaborate: the two styles, and a conductor that reads its steps from a file.
It refuses a folder that it cannot read whole: a scenario that is half there would be half measured.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError

STYLES = ("orchestration", "choreography")
SETTINGS = "settings"  # a conductor whose steps are read from a file: it serves orchestrated orders
ARMS = (*STYLES, SETTINGS)
FOLDER = "changes"
# Rollouts without care: everything at once, beginning or ending with checkout.
CHECKOUT_FIRST, CHECKOUT_LAST = "checkout_first", "checkout_last"


@dataclass(frozen=True)
class Arm:
    """One arm of a scenario: `base` comes before the start, `stages` are patches in the order of the rollout.

    `about` is the service whose own change it is; `careless` are the rollouts without care that are shown.
    """

    name: str
    stages: tuple[Path, ...]
    about: str
    careless: tuple[str, ...] = ()
    base: Path | None = None

    @property
    def rollout(self) -> tuple[Path, ...]:
        """The stages that change anything."""
        return tuple(stage for stage in self.stages if stage.stat().st_size)

    @property
    def style(self) -> str:
        """The style of the orders that are placed."""
        return self.name if self.name in STYLES else STYLES[0]


@dataclass(frozen=True)
class Scenario:
    """One change: `new` are the folders of services that it brings, for all arms."""

    slug: str
    number: float
    title: str
    folder: Path
    arms: Mapping[str, Arm]
    new: tuple[Path, ...]

    @property
    def story(self) -> str:
        """Its README, without the title."""
        return (self.folder / "README.md").read_text().partition("\n")[2].strip()

    @property
    def proof(self) -> Path:
        """The program that shows on a running system that the change has come about."""
        return self.folder / "proof.py"

    @property
    def backfill(self) -> Path | None:
        """The program that gives a new service the orders of before, where there is a new service."""
        file = self.folder / "backfill.py"
        return file if file.exists() else None


def read_scenarios(root: Path) -> tuple[Scenario, ...]:
    """All scenarios of a tree, by number; raise `LabError` where one cannot be read."""
    found = [_read(path.parent) for path in sorted((root / FOLDER).glob("*/scenario.toml"))]
    if not found:
        raise LabError(f"no scenario in {root / FOLDER}: the change lab works on a checkout of the project")
    return tuple(sorted(found, key=lambda scenario: scenario.number))


def choose(scenarios: tuple[Scenario, ...], name: str) -> tuple[Scenario, ...]:
    """The scenarios called `name` (a slug or a number), or `all`; raise `LabError` where there is none."""
    if name == "all":
        return scenarios
    chosen = tuple(each for each in scenarios if name in (each.slug, f"{each.number:g}"))
    if not chosen:
        raise LabError(f"there is no scenario {name}: it is all, {', '.join(s.slug for s in scenarios)}")
    return chosen


def _read(folder: Path) -> Scenario:
    try:
        told = tomllib.loads((folder / "scenario.toml").read_text())
        arms = {name: _arm(folder, name, told) for name in ARMS if list(folder.glob(f"{name}.*patch"))}
        scenario = Scenario(
            slug=folder.name,
            number=float(told["number"]),
            title=str(told["title"]),
            folder=folder,
            arms=arms,
            new=tuple(sorted(path for path in (folder / "new").glob("*") if path.is_dir())),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{folder} does not describe a change: {error!r}") from error
    missing = [each for each in ("README.md", "proof.py") if not (folder / each).exists()]
    missing += [f"{style}.patch" for style in STYLES if style not in arms]
    if missing:
        raise LabError(f"{folder} lacks {', '.join(missing)}")
    return scenario


def _arm(folder: Path, name: str, told: Mapping[str, Any]) -> Arm:
    stages = [
        path for path in folder.glob(f"{name}*.patch") if re.fullmatch(rf"{name}(\.\d+)?\.patch", path.name)
    ]
    base = folder / f"{name}.base.patch"
    return Arm(
        name=name,
        stages=tuple(sorted(stages, key=_stage)),
        about=str(told.get(name, {}).get("about", told.get("about"))),
        careless=tuple(
            each for each in (CHECKOUT_FIRST, CHECKOUT_LAST) if name in told.get("careless", {}).get(each, ())
        ),
        base=base if base.exists() else None,
    )


def _stage(path: Path) -> int:
    number = path.name.split(".")[1]
    return int(number) if number.isdigit() else 0
