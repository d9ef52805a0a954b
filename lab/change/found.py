"""What one experiment showed, and the figures that follow from it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.change.scenarios import Arm, Scenario
from lab.change.tree import Digest, Touched, together
from lab.coupling.knowledge import Knowledge
from lab.coupling.observed import Observed
from lab.system import BROKER

SLOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """One service deployed in a stage, from `began` until it was `ready` (seconds since 1970)."""

    stage: int
    name: str
    new: bool
    began: float
    ready: float = 0.0


@dataclass(frozen=True, slots=True)
class Fate:
    """One order of the traffic: when it was to leave, when it was completed, and whether one try did."""

    intended: float
    completed: float | None
    at_first_try: bool

    @property
    def slow(self) -> bool:
        """Whether it took longer than a second, whatever held it up."""
        return self.completed is None or self.completed - self.intended > SLOW_S


@dataclass(frozen=True, slots=True)
class Changed:
    """What a stage changes: names of what is new, of services whose own code or whose plumbing alone is
    another, whether the broker's users are, and the files.
    """

    new: tuple[str, ...]
    own: tuple[str, ...]
    plumbing: tuple[str, ...]
    broker: bool
    touched: tuple[Touched, ...]


def compare(before: Mapping[str, Digest], after: Mapping[str, Digest], touched: Iterable[Touched]) -> Changed:
    """What differs between two states of a tree."""
    known = [name for name in after if name in before and name != BROKER]
    own = tuple(name for name in known if after[name].own != before[name].own)
    return Changed(
        new=tuple(name for name in after if name not in before),
        own=own,
        plumbing=tuple(name for name in known if name not in own and after[name] != before[name]),
        broker=before[BROKER] != after[BROKER],
        touched=tuple(touched),
    )


@dataclass
class Found:
    """What one experiment showed. Times are in seconds since 1970."""

    scenario: Scenario
    arm: Arm
    careless: str = ""  # one of the arm's; empty: with care
    rate: float = 0.0
    error: str = ""  # why it could not be carried out
    changed: list[Changed] = field(default_factory=list)  # by stage
    base: list[Touched] = field(default_factory=list)
    contracts: list[str] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    fates: list[Fate] = field(default_factory=list)
    not_accepted: list[str] = field(default_factory=list)
    retried_by_hand: int = 0
    began: float = 0.0
    ended: float = 0.0
    audit: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    backfill: dict[str, Any] | None = None
    before: Knowledge | None = None
    after: Knowledge | None = None
    seen_before: Observed | None = None
    seen_after: Observed | None = None
    lag_s: float = 0.0

    @property
    def existing_changed(self) -> list[str]:
        """Existing services whose own code has changed, but for the one that the change is about (ES)."""
        return sorted({name for stage in self.changed for name in stage.own} - {self.arm.about})

    @property
    def plumbing_changed(self) -> list[str]:
        """Further existing services: of these only the plumbing has changed, which all services share (P)."""
        own = {name for stage in self.changed for name in stage.own}
        return sorted({name for stage in self.changed for name in stage.plumbing} - own - {self.arm.about})

    @property
    def touched(self) -> list[Touched]:
        """Files touched by all stages together, the new services' own not among them."""
        return together(stage.touched for stage in self.changed)

    @property
    def product(self) -> list[Touched]:
        """Of these, what is code or deployment of the product."""
        return [each for each in self.touched if each.is_product]

    @property
    def restarts(self) -> int:
        """How often an existing service was restarted (R)."""
        return sum(not each.new and each.name != BROKER for each in self.deployments)

    @property
    def lock_step(self) -> int:
        """Existing services that are not deployed when their owners like, but in the order of stages (X)."""
        names = {name for stage in self.changed for name in stage.own}
        return len(names) if len(names) > 1 and len(self.arm.rollout) > 1 else 0

    @property
    def refused(self) -> int:
        """Orders that were not accepted at the first try."""
        return sum(not fate.at_first_try for fate in self.fates) + len(self.not_accepted)

    @property
    def slow(self) -> int:
        """Orders that took longer than a second from when they were to leave."""
        return sum(fate.slow for fate in self.fates)

    @property
    def worst_s(self) -> float:
        """The longest time that an order took, of those that were completed."""
        return max((fate.completed - fate.intended for fate in self.fates if fate.completed), default=0.0)

    @property
    def lost(self) -> int:
        """Accepted orders that checkout does not know, or of which an effect is missing."""
        return int(self.audit.get("lost", 0)) + int(self.audit.get("missing", 0))

    @property
    def duplicated(self) -> int:
        """Effects too many."""
        return int(self.audit.get("duplicate", 0)) + int(self.audit.get("unexpected", 0))

    @property
    def sound(self) -> bool:
        """Whether the ledger balances, every order was accepted, and the change has come about."""
        shown = [self.proof, *([self.backfill] if self.backfill is not None else [])]
        balances = bool(self.audit.get("balances")) and not self.not_accepted
        return not self.error and balances and all(each.get("proved") is True for each in shown)
