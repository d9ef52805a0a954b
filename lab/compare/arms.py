"""What is compared: the two styles, the settings that they run under, and variants of other people's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.targets import Target

ORCHESTRATION, CHOREOGRAPHY = "orchestration", "choreography"
ACK = "the order is on checkout's disk"
COMPLETION = (
    "the last effect that the order is owed is written by its service, at the time that this gives it in its "
    "transaction (the commit that follows is not in it, in no arm)"
)
THEIR_ACK = "whatever a 2xx of this variant promises"


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a style of our own under `settings` (environment), or a target.

    `prefer` is how long its clients ask to wait.
    """

    name: str
    style: str
    settings: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None
    prefer: str = "respond-async"

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values, with what its two clocks mean."""
        ack = ACK if self.target is None else THEIR_ACK
        return {"name": self.name, "style": self.style, "ack_means": ack, "completion_means": COMPLETION}


def both_styles(settings: Mapping[str, str] | None = None) -> list[Arm]:
    """Both styles, under the same settings."""
    return [Arm(style, style, settings or {}) for style in (ORCHESTRATION, CHOREOGRAPHY)]


def target_arm(target: Target) -> Arm:
    """A target as an arm."""
    return Arm(target.name, target.style, target=target)
