"""What the lab's commands leave in a folder, as far as a report shows it.

What a newer command adds is left unread, and is among the raw data all the same.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Number = FiniteFloat
Numbers = dict[str, Number]


class Part(BaseModel):
    """Any part of a document."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Setting(Part):
    """The machine and the software; see lab.bench.setting."""

    cores: int
    processor: str
    platform: str
    load_1m: Number
    filesystem: str
    fsync_ms: Numbers
    python: str
    sqlite: str
    versions: dict[str, str]
    commit: str | None
    uncommitted_changes: bool | None


class Ratio(Part):
    """b over a, with its interval."""

    point: Number
    low: Number
    high: Number
    pairs: int
    confidence: Number


class Figure(Part):
    """One figure of two arms, with its verdict; see lab.compare.verdicts."""

    slug: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    a: str
    b: str
    a_value: Number | None
    b_value: Number | None
    ratio: Ratio | None
    verdict: str
    smallest: Number | None
    sentence: str


class Window(Part):
    """One arm at one rate for a while; latencies in ms. Empty or None: not known."""

    arm: str
    round: int
    accepted: int
    turned_away: int = 0
    errors: dict[str, int] = {}
    completed: int
    unfinished: int
    ack_ms: Numbers
    completion_ms: Numbers
    cpu_ms: Numbers = {}
    system_cpu_ms: Number | None = None
    memory_mb: Numbers = {}
    calls_per_order: Number | None = None
    messages_per_order: Number | None = None
    deliveries_per_order: Number | None = None
    generator_lag_ms: Numbers = {}
    others_cpu_share: Number | None = None
    ledger: dict[str, Any] = {}
    histograms: dict[str, str] = {}
    trouble: str | None = None


class Scenario(Part):
    """Arms under one workload; `rate` in orders a second."""

    name: str
    title: str
    what: str
    arms: list[str] = Field(min_length=1)
    rate: Number
    service_time: dict[str, str] = {}
    error_rate: dict[str, str] = {}
    fresh_systems: bool
    pairs: int
    window_s: Number
    warm_up_s: Number
    windows: list[Window]
    figures: list[Figure]

    def of(self, arm: str) -> list[Window]:
        """The windows of one arm."""
        return [window for window in self.windows if window.arm == arm]


class Step(Part):
    """One rate that was tried in a search."""

    rate: Number
    met: bool
    why: str = ""
    completed_rate: Number | None = None
    completion_p99_ms: Number | None = None


class Search(Part):
    """One search for an arm's capacity; None if no rate met the objective."""

    arm: str
    round: int
    capacity_per_s: Number | None
    steps: list[Step]


class Capacity(Part):
    """All searches, and the figure that they give."""

    objective: Numbers
    searches: list[Search]
    figure: Figure


class Ablation(Part):
    """One part left out, in one style."""

    name: str
    title: str
    what: str
    settings: dict[str, str]
    style: str
    rate: Number
    figures: list[Figure]


class Claim(Part):
    """A published claim, held against what was measured."""

    name: str
    source: str
    claim: str
    found: str
    holds: str
    clock: str
    why: str


class Arm(Part):
    """What a 2xx and a completion mean for it."""

    name: str
    style: str
    ack_means: str
    completion_means: str


class Comparison(Part):
    """compare.json"""

    kind: Literal["compare"]
    version: Literal[1]
    shape: str
    made_at: str
    command: str
    setting: Setting
    seed: int
    generator_priority: str = "unknown"
    arms: list[Arm] = Field(min_length=2)
    scenarios: list[Scenario] = Field(min_length=1)
    aa: Scenario | None = None
    capacity: Capacity | None = None
    extra: list[Scenario] = []
    ablations: list[Ablation] = []
    claims: list[Claim] = []
    troubles: list[str] = []
    passed: bool


class FaultArm(Part):
    """A column of the matrix."""

    name: str
    title: str
    what: str
    durable: bool


class Fault(Part):
    """A row of the matrix."""

    slug: str
    title: str
    what: str
    group: str


class Cell(Part):
    """One arm under one fault; a skipped one has no figures. A time is None where there is none."""

    arm: str
    fault: str
    skipped: str | None = None
    intended: int = 0
    accepted: int = 0
    refused: int = 0
    completed: int = 0
    lost: int = 0
    duplicated: int = 0
    stuck: int = 0
    needs_attention: int = 0
    orphaned: int = 0
    p99_ms: Number | None = None
    recovery_s: Number | None = None
    attempts_per_order: Number | None = None
    posts_per_order: Number | None = None
    sound: bool
    notes: list[str] = []


class Faults(Part):
    """faults.json"""

    kind: Literal["faults"]
    version: Literal[1]
    made_at: str
    command: str
    setting: Setting
    seed: int
    rate: Number
    arms: list[FaultArm] = Field(min_length=1)
    faults: list[Fault]
    cells: list[Cell]
    passed: bool


class ChangeSetting(Part):
    """The sentence says the machine and the way, for people."""

    sentence: str


class Experiment(Part):
    """One change in one arm; `figures` are texts, by the names of lab.change.report."""

    scenario: str
    number: Number
    arm: str
    careless: str
    sound: bool
    figures: dict[str, str]
    error: str = ""


class Changes(Part):
    """changes.json"""

    setting: ChangeSetting
    experiments: list[Experiment]
