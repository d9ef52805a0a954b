"""One change on one arm, carried out on a running system under load, and what was seen of it.

With care the stages come one after the other, and in each of them new services first, then the changed ones
by port, checkout last, each once the one before is ready. Without care everything comes at once, and nobody
looks whether anything is ready. It refuses to call a change done that its own proof does
not show, or that leaves a ledger which does not balance.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab.change.live import Live, live
from lab.change.scenarios import CHECKOUT_FIRST, Arm, Scenario
from lab.change.traffic import Sent, Traffic, completions
from lab.change.tree import Touched, Tree
from lab.client import open_client
from lab.coupling.knowledge import Knowledge, knowledge
from lab.coupling.observed import Observed, observe
from lab.synced import SyncedLines
from lab.system import BROKER, CONDUCTOR

SLOW_S = 1.0


@dataclass(frozen=True)
class Shape:
    """How an experiment is run: orders a second, and seconds before, between and after what is deployed.

    Between stages there is time for what the old code has left on its way. Without care services are deployed
    `careless_s` after each other, as by teams who do not wait for each other.
    """

    rate: float = 20.0
    before_s: float = 4.0
    between_s: float = 0.5
    between_stages_s: float = 3.0
    careless_s: float = 6.0
    after_s: float = 4.0


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


@dataclass
class Found:
    """What one experiment showed. Times are in seconds since 1970."""

    scenario: Scenario
    arm: Arm
    careless: str = ""  # one of the arm's; empty: with care
    rate: float = 0.0
    changed: list[list[str]] = field(default_factory=list)  # by stage: existing services
    new: list[str] = field(default_factory=list)
    broker_told: int = 0
    touched: list[Touched] = field(default_factory=list)
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
        """Existing services whose code has changed, but for the one that the scenario is about (ES)."""
        return sorted({name for stage in self.changed for name in stage} - {self.arm.about})

    @property
    def product(self) -> list[Touched]:
        """Files of the product touched outside the new services."""
        return [each for each in self.touched if each.is_product]

    @property
    def restarts(self) -> int:
        """How often an existing service was restarted (R)."""
        return sum(not each.new and each.name != BROKER for each in self.deployments)

    @property
    def lock_step(self) -> int:
        """Existing services that are not deployed when their owners like, but in the order of stages (X)."""
        names = {name for stage in self.changed for name in stage}
        return len(names) if len(names) > 1 and len(self.arm.stages) > 1 else 0

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
        return int(self.audit["lost"]) + int(self.audit["missing"])

    @property
    def duplicated(self) -> int:
        """Effects too many."""
        return int(self.audit["duplicate"]) + int(self.audit["unexpected"])

    @property
    def sound(self) -> bool:
        """Whether the ledger balances, every order was accepted, and the change has come about."""
        balances = bool(self.audit.get("balances")) and not self.not_accepted
        return balances and bool(self.proof.get("proved")) and (self.backfill or {}).get("proved", True)


async def carry_out(
    scenario: Scenario, arm: Arm, tree: Tree, folder: Path, shape: Shape, careless: str = ""
) -> Found:
    """Run one experiment on a fresh copy `tree`, with its data in `folder`. Raises `LabError`."""
    found = Found(scenario, arm, careless, rate=shape.rate)
    if arm.base is not None:
        tree.apply(arm.base)
    tree.begin()
    found.before = knowledge(tree.root, arm.style)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client())
        system = await stack.enter_async_context(live(tree, folder, client))
        accepted = await stack.enter_async_context(SyncedLines(system.system.accepted_file))
        contracts = await system.contracts()
        if not careless:
            found.seen_before = await observe(system.system, client, tree.root, arm.style)
        traffic = Traffic(client, system.system.url(CONDUCTOR), arm.style, shape.rate, accepted)
        stack.push_async_callback(traffic.abort)
        traffic.start()
        found.began = time.time()
        await asyncio.sleep(shape.before_s)
        await _roll_out(found, system, shape)
        await asyncio.sleep(shape.after_s)
        await traffic.stop()
        found.ended, found.lag_s = time.time(), traffic.lag_s
        await _judge(found, system, traffic.sent)
        after = await system.contracts()
        found.contracts = sorted(name for name, digest in contracts.items() if after.get(name) != digest)
    found.touched = tree.touched(but=[path.name for path in scenario.new])
    found.after = knowledge(tree.root, arm.style)
    return found


async def _roll_out(found: Found, system: Live, shape: Shape) -> None:
    stages = found.arm.stages
    groups: Sequence[Sequence[Path]] = [stages] if found.careless else [[stage] for stage in stages]
    for number, patches in enumerate(groups, 1):
        if number > 1:
            await asyncio.sleep(shape.between_stages_s)
        before = await asyncio.to_thread(system.tree.digests)
        if number == 1 and found.scenario.new:
            await asyncio.to_thread(system.tree.add, found.scenario.new)
        for patch in patches:
            await asyncio.to_thread(system.tree.apply, patch)
        after = await asyncio.to_thread(system.tree.digests)
        new = [name for name in after if name not in before]
        changed = [name for name in after if name in before and after[name] != before[name]]
        found.broker_told += BROKER in changed
        found.changed.append([name for name in changed if name != BROKER])
        found.new += new
        turns = _in_turn(system, new, found.changed[-1])
        if found.careless == CHECKOUT_FIRST:
            turns.reverse()
        if BROKER in changed:
            turns.insert(0, BROKER)
        waits = []
        for name in turns:
            began = time.time()
            await system.deploy(name)
            waits.append(
                asyncio.create_task(_until_ready(system, Deployment(number, name, name in new, began)))
            )
            if not found.careless:
                await waits[-1]
            await asyncio.sleep(shape.careless_s if found.careless else shape.between_s)
        found.deployments += await asyncio.gather(*waits)


async def _until_ready(system: Live, deployment: Deployment) -> Deployment:
    await system.ready(deployment.name)
    return replace(deployment, ready=time.time())


def _in_turn(system: Live, new: Sequence[str], changed: Sequence[str]) -> list[str]:
    """New services, then the changed ones by port, checkout last."""
    ports = {service.name: service.port_offset for service in system.system.services}

    def place(name: str) -> tuple[int, int]:
        return (2 if name == CONDUCTOR else 0 if name in new else 1), ports[name]

    return sorted((*new, *changed), key=place)


async def _judge(found: Found, system: Live, sent: Sequence[Sent]) -> None:
    """Wait until all is quiet, put right by hand what a person would have to, and read the books."""
    report = await system.audit()
    if report["orders"]["needs_attention"]:
        found.retried_by_hand = int(report["orders"]["needs_attention"])
        await system.duet("stuck", "retry", "--all", "--yes")
        await system.audit()  # which waits until that is done
    found.proof = await system.program(found.scenario.proof, found.arm.style)
    if found.scenario.backfill is not None:
        found.backfill = await system.program(found.scenario.backfill, found.arm.style)
    if not found.careless:
        found.seen_after = await observe(system.system, system.client, system.tree.root, found.arm.style)
    found.audit = await system.audit()
    ends = completions(await system.orders())
    for each in sorted(sent, key=lambda each: each.intended):
        if each.order_id is None:
            found.not_accepted.append(each.trouble)
        else:
            found.fates.append(Fate(each.intended, ends.get(each.order_id), each.tries == 1))
