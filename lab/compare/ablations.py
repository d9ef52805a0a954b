"""Ablations: what each part of the system costs, by leaving it out. For measuring only.

Without them a client, a disk or a retry may be taken for a style. Each is a pair of arms, as it is and
without, of one style, measured like any two arms; the figures of all ablations are corrected together.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm
from lab.compare.rig import Load, Rig
from lab.compare.scenarios import FIGURES, Advance, Keep, Scenario, measure
from lab.compare.verdicts import Figure, judge
from lab.compare.windows import Window

AS_IT_IS, WITHOUT = "as it is", "without"
SERVICES = ("CHECKOUT", "EMAIL", "WAREHOUSE", "REWARDS")
# So many that there is company to wait for, and as many as is managed without it, too.
BUSY = 450.0
JUDGED = ("ack_p50", "completion_p50", "completion_p99", "cpu")


@dataclass(frozen=True)
class Ablation:
    """One part that can be left out, in which styles, and by which settings.

    `early`: without it, orders are called completed before their effects are there. `least_rate`: it does
    something only under load, of at least so many orders a second.
    """

    name: str
    title: str
    what: str
    styles: tuple[str, ...]
    settings: Mapping[str, str]
    early: bool = False
    least_rate: float = 0.0


ABLATIONS = (
    Ablation(
        "durability",
        "the disk under the databases",
        "no commit waits for the disk: a power cut loses accepted orders",
        (ORCHESTRATION, CHOREOGRAPHY),
        {f"{service}_DATABASE_SYNC": "off" for service in SERVICES},
    ),
    Ablation(
        "retries",
        "retries within a pass",
        "each call is tried once; a later pass tries again",
        (ORCHESTRATION,),
        {"CHECKOUT_CALL_MAX_ATTEMPTS": "1"},
    ),
    Ablation(
        "client",
        "the HTTP client's pool",
        "the conductor's calls go through httpx's own connection pool instead of aiohttp's",
        (ORCHESTRATION,),
        {"CHECKOUT_HTTP_POOL": "httpx"},
    ),
    Ablation(
        "batching",
        "batches of events",
        "each service handles its events one by one, each in a transaction of its own",
        (CHOREOGRAPHY,),
        {f"{service}_EVENT_BATCH": "1" for service in SERVICES[1:]},
    ),
    Ablation(
        "natural-batching",
        "natural batching at checkout",
        "each command is a request of its own, and each event is published by itself",
        (ORCHESTRATION, CHOREOGRAPHY),
        {"CHECKOUT_BATCHING": "off"},
        least_rate=BUSY,
    ),
    Ablation(
        "riding",
        "outcomes that ride",
        "each outcome waits for a commit of its own before anybody hears of it",
        (ORCHESTRATION, CHOREOGRAPHY),
        {"CHECKOUT_OUTCOME_DELAY_S": "0"},
        least_rate=BUSY,
    ),
    Ablation(
        "broker-sync",
        "the disk under the broker",
        "the broker acknowledges before the disk has it: a power cut loses events",
        (CHOREOGRAPHY,),
        {"DUET_BROKER_SYNC": "default"},
    ),
    Ablation(
        "timeline",
        "the timeline",
        "checkout hears no outcome: nobody can say where an order is, and nothing is resumed",
        (CHOREOGRAPHY,),
        {"CHECKOUT_TIMELINE": "off"},
        early=True,
    ),
)


@dataclass(frozen=True)
class Ablated:
    """What came of one ablation in one style."""

    ablation: Ablation
    style: str
    load: Load
    windows: Sequence[Window]
    figures: Sequence[Figure]

    @property
    def troubles(self) -> list[str]:
        """Why its figures are not to be used, if they are not."""
        return [
            f"without {self.ablation.title}, {self.style}, {w.arm}, round {w.round}: {w.trouble}"
            for w in self.windows
            if w.trouble
        ]

    def as_document(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.ablation.name,
            "title": self.ablation.title,
            "what": self.ablation.what,
            "settings": dict(self.ablation.settings),
            "style": self.style,
            "rate": self.load.rate,
            "windows": [window.as_document() for window in self.windows],
            "figures": [figure.as_document() for figure in self.figures],
        }


def count() -> int:
    """How many experiments there are."""
    return sum(len(ablation.styles) for ablation in ABLATIONS)


async def measure_ablations(
    rig: Rig,
    load: Load,
    rounds: int,
    seed: int,
    advance: Advance,
    settings: Mapping[str, str] | None = None,
    keep: Keep = lambda *_: None,
) -> AsyncIterator[Ablated]:
    """Measure every ablation in each style that it concerns, all under `settings`. Raises `LabError`."""
    for ablation in ABLATIONS:
        under = replace(load, rate=max(load.rate, ablation.least_rate))
        for style in ablation.styles:
            as_it_is = Arm(AS_IT_IS, style, settings or {})
            left_out = {**(settings or {}), **ablation.settings}
            without = Arm(WITHOUT, style, left_out, early=ablation.early)
            name = f"without {ablation.name} ({style})"
            scenario = Scenario(name, "", "", (as_it_is, without), under, rounds, fresh=False)
            windows = (await measure(rig, scenario, seed, advance, keep)).windows
            yield Ablated(ablation, style, under, windows, _figures(windows))


def _figures(windows: Sequence[Window]) -> list[Figure]:
    of = {
        name: sorted((w for w in windows if w.arm == name), key=lambda w: w.round)
        for name in (AS_IT_IS, WITHOUT)
    }
    return [
        judge(
            kind,
            (AS_IT_IS, [read(w) for w in of[AS_IT_IS]]),
            (WITHOUT, [read(w) for w in of[WITHOUT]]),
            count() * len(JUDGED),
        )
        for kind, read in FIGURES
        if kind.slug in JUDGED
    ]
