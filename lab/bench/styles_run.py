"""The styles bench: both styles on one whole system of real services, in interleaved windows.

One system serves all windows of a mail setting, in an order that rotates from round to round, so that what
drifts (the databases grow, the machine warms up) meets both styles alike, and no style gets the fresher disk.
It refuses to judge by speed alone: in the end every order is reconciled with every service's effects.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.bench.goals import FULL, HALF, Goal, judge
from lab.bench.open_loop import Load, OpenLoop, open_loop
from lab.bench.setting import Setting, describe
from lab.bench.windows import Alone, Window
from lab.ledger import Report
from lab.system import Mail

IDLE_S = 5.0
LONE = "lone"


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each round, for every style, a window at its full rate, one at half of it for
    half as long, and a lone client.

    `rates` are orders a second by style; `judged` is whether goals are held against what is found.
    """

    mails: tuple[Mail, ...]
    rates: Mapping[str, float]
    rounds: int
    measured_s: float
    warm_up_s: float
    lone_orders: int
    lone_warm_up: int
    judged: bool
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many measurements that makes, with the start and the final read of each system."""
        return len(self.mails) * (self.rounds * len(self.rates) * 3 + 2)


@dataclass(frozen=True, slots=True)
class Found:
    """What was found on one system: idle memory in MB by process, windows, lone orders, the ledger, goals."""

    mail: Mail
    idle_mb: dict[str, float]
    windows: list[Window]
    alone: list[Alone]
    ledger: Report
    goals: list[Goal]

    @property
    def passed(self) -> bool:
        """Whether the ledger balances, no order met an error, and no goal is missed."""
        trouble = any(window.errors for window in self.windows) or any(each.errors for each in self.alone)
        return self.ledger.balances and not trouble and all(goal.met is not False for goal in self.goals)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found, one system after the other."""

    setting: Setting
    shape: Shape
    found: list[Found]

    @property
    def passed(self) -> bool:
        """Whether every system did what was asked of it."""
        return all(each.passed for each in self.found)


async def run(shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `out`, if given, gets each window's orders as CSV.

    `advance` is called with what comes next. SIGTERM ends it as Ctrl-C does. Raises LabError.
    """
    setting = await asyncio.to_thread(describe, folder)
    return Outcome(
        setting, shape, [await _measure(mail, shape, folder, out, advance) for mail in shape.mails]
    )


async def _measure(
    mail: Mail, shape: Shape, folder: Path, out: Path | None, advance: Callable[[str], None]
) -> Found:
    """Everything on one system, which is gone afterwards."""
    own = folder / mail
    own.mkdir()
    advance(f"mail {mail}: starting")
    async with open_loop(own, mail, shape.seed) as loop:
        await asyncio.sleep(IDLE_S)
        idle_mb = loop.whole.memory_mb()
        for number in range(shape.rounds):
            await _measure_round(shape, loop, number, lambda what: advance(f"mail {mail}, {what}"))
        advance(f"mail {mail}: reading the books")
        windows, alone, ledger = await loop.reckon(out)
    shutil.rmtree(own)
    goals = judge(mail, windows, alone, idle_mb) if shape.judged else []
    return Found(mail, idle_mb, windows, alone, ledger, goals)


async def _measure_round(shape: Shape, loop: OpenLoop, number: int, advance: Callable[[str], None]) -> None:
    """One round: every style under every load, beginning with another style than the round before."""
    styles = list(shape.rates)
    turn = number % len(styles)
    for name in (FULL, HALF, LONE):
        share = 0.5 if name == HALF else 1.0
        for style in styles[turn:] + styles[:turn]:
            advance(f"round {number + 1} of {shape.rounds}: {style}, {name}")
            if name == LONE:
                await loop.measure_lone(style, shape.lone_warm_up, shape.lone_orders, number)
            else:
                load = Load(name, shape.rates[style] * share, shape.warm_up_s, shape.measured_s * share)
                await loop.measure(style, load, number)
