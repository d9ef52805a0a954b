"""What an order costs by how much there is to do: CPU time over the rounds, and its cost curve. Pure.

It refuses an interval where there is one round: then the range of the figures is one figure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.box import SIMPLE
from rich.table import Table

from lab.bench.generator import Measurement


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several rounds: their median, the lowest and the highest."""

    median: float
    low: float
    high: float

    def told(self, digits: int = 2) -> str:
        """In words: `1.23 [1.20, 1.31]`."""
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}, {self.high:,.{digits}f}]"


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU ms of one arm's conductor for each completed order, at one number of clients."""

    arm: str
    clients: int
    cpu_ms_per_order: Spread


def cpu_ms(measurement: Measurement) -> float:
    """CPU ms of the conductor for each order that was completed in the measured time."""
    return measurement.cpu_s["conductor"] * 1000 / measurement.measured


def spread(figures: Iterable[float]) -> Spread:
    """The spread of some figures. Raises ValueError for none."""
    known = list(figures)
    if not known:
        raise ValueError("no spread of nothing")
    return Spread(median(known), min(known), max(known))


def cost_curve(
    measurements: Sequence[Measurement], arms: Sequence[str], clients: Sequence[int]
) -> list[Cost]:
    """The cost of each arm at each number of clients, over the rounds that were measured."""
    return [
        Cost(
            arm,
            count,
            spread(cpu_ms(m) for m in measurements if m.arm == arm and m.clients == count),
        )
        for arm in arms
        for count in clients
    ]


def cost_table(costs: Sequence[Cost]) -> Table:
    """The curve, a line for each arm."""
    table = Table(
        title="CPU ms of the conductor for each order, by clients: median, lowest and highest", box=SIMPLE
    )
    table.add_column("conductor", no_wrap=True)
    clients = list(dict.fromkeys(cost.clients for cost in costs))
    for count in clients:
        table.add_column(str(count), justify="right", no_wrap=True)
    for arm in dict.fromkeys(cost.arm for cost in costs):
        table.add_row(arm, *(cost.cpu_ms_per_order.told() for cost in costs if cost.arm == arm))
    return table
