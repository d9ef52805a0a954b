"""What each of several revisions brought: the durable conductor of each, on the same stubs, interleaved.

The revisions stand in the order in which they were made, and this tree after them. A ratio is of a conductor
and the one before it, in one round. All use our generator, our stubs and our dependencies. It refuses to
judge by speed alone: every order is reconciled.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lab.bench.arms import all_ready, durable
from lab.bench.children import ROOT, free_ports
from lab.bench.closed import closed_loop
from lab.bench.cost import cpu_ms
from lab.bench.generator import Measurement
from lab.bench.intervals import Ratio, paired_ratio
from lab.bench.ledger import Ledger, reconcile, stored_orders
from lab.bench.revision import check_out, find_commit
from lab.bench.setting import Setting, describe
from lab.errors import LabError

THIS_TREE = "this-tree"
SHORT = 12  # digits of a commit
CONFIDENCE = 0.95  # of each interval: what a step brought is reported, and not held to a goal


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is measured: in each of `pairs` rounds, every revision at every number of clients."""

    revisions: tuple[str, ...]
    pairs: int
    measured_s: float
    warm_up_s: float
    clients: tuple[int, ...]
    seed: int = 20

    @property
    def steps(self) -> int:
        """How many measurements that makes, with the checkouts."""
        return self.pairs * len(self.clients) * (len(self.revisions) + 1) + 1


@dataclass(frozen=True, slots=True)
class Step:
    """The conductor's CPU time of an order at one revision, over that at the one before it."""

    arm: str
    before: str
    clients: int
    cpu: Ratio


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found; `commits` is what each revision meant. An arm has the name of its commit."""

    setting: Setting
    shape: Shape
    commits: Mapping[str, str]
    measurements: list[Measurement]
    brought: list[Step]
    ledger: Ledger

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the conductors, oldest first."""
        return arms_of(self.commits)

    @property
    def passed(self) -> bool:
        """Whether the ledger balances."""
        return self.ledger.balances


def arms_of(commits: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the conductors of these commits, and of this tree's."""
    return (*(commit[:SHORT] for commit in commits.values()), THIS_TREE)


async def run(shape: Shape, folder: Path, advance: Callable[[str], None]) -> Outcome:
    """Runs the whole bench in `folder`; `advance` is called with what comes next. Raises LabError."""
    commits = {name: await asyncio.to_thread(find_commit, name) for name in shape.revisions}
    if len(set(commits.values())) < len(commits):
        raise LabError("--against names a commit twice: name each once, oldest first")
    setting = await asyncio.to_thread(describe, folder)
    advance("checking out the revisions")
    roots = [await asyncio.to_thread(check_out, each, folder / f"tree-{each}") for each in commits.values()]
    trees = dict(zip(arms_of(commits), [*roots, ROOT], strict=True))
    bounds = {"warm_up_s": shape.warm_up_s, "measured_s": shape.measured_s}
    async with (
        closed_loop(folder, **bounds, seed=shape.seed) as loop,
        all_ready(
            durable(name, port, loop.ports, folder, {}, root)
            for (name, root), port in zip(trees.items(), free_ports(len(trees)), strict=True)
        ) as arms,
    ):
        for number in range(shape.pairs):
            for clients in shape.clients:
                for name in order_of(tuple(trees), number):
                    advance(f"round {number + 1} of {shape.pairs}, {clients} clients, {name}")
                    await loop.measure(arms[name], clients)
        stored = {name: await stored_orders(arm) for name, arm in arms.items()}
    brought = compare(loop.measurements, tuple(trees), shape.clients)
    ledger = reconcile(loop.accounts, stored)
    return Outcome(setting, shape, commits, loop.measurements, brought, ledger)


def order_of(arms: Sequence[str], number: int) -> Sequence[str]:
    """In which order a round measures them: it rotates, and every other round goes backwards.

    So no conductor follows the same one each time.
    """
    turn = number // 2 % len(arms)
    rotated = [*arms[turn:], *arms[:turn]]
    return rotated[::-1] if number % 2 else rotated


def compare(measurements: Sequence[Measurement], arms: Sequence[str], clients: Sequence[int]) -> list[Step]:
    """What each brought, paired by round, at each number of clients."""
    costs = {
        (arm, count): [cpu_ms(m) for m in measurements if (m.arm, m.clients) == (arm, count)]
        for arm in arms
        for count in clients
    }
    return [
        Step(arm, before, count, paired_ratio(costs[arm, count], costs[before, count], CONFIDENCE))
        for before, arm in pairwise(arms)
        for count in clients
    ]
