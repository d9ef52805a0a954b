"""One change on one arm, carried out on a running system under load, and what was seen of it.

With care the stages come one after the other, and in each of them new services first, then the changed ones
by port, checkout last, each once the one before is ready. Without care all stages are one, and services are
deployed some seconds after each other, ready or not. It refuses to call a change done that its own proof does
not show, or that leaves a ledger which does not balance.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from lab.change.found import Changed, Deployment, Fate, Found, compare
from lab.change.live import Live, live
from lab.change.scenarios import CHECKOUT_FIRST, Arm, Scenario
from lab.change.tree import Tree, together
from lab.client import open_client
from lab.coupling.knowledge import knowledge
from lab.coupling.observed import observe
from lab.synced import SyncedLines
from lab.system import BROKER, CONDUCTOR
from lab.traffic import Sent, Traffic, completions


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


async def carry_out(
    scenario: Scenario, arm: Arm, tree: Tree, folder: Path, shape: Shape, careless: str = ""
) -> Found:
    """Run one experiment on a fresh copy `tree`, with its data in `folder`. Raises `LabError`."""
    found = Found(scenario, arm, careless, rate=shape.rate)
    if arm.base is not None:
        found.base = tree.apply(arm.base)
    found.before = knowledge(tree.root, arm.style)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(open_client())
        system = await stack.enter_async_context(live(tree, folder, client))
        accepted = await stack.enter_async_context(SyncedLines(system.system.accepted_file))
        contracts = await system.contracts(arm.style)
        if not careless:
            found.seen_before = await observe(system.system, client, tree.root, arm.style)
        traffic = Traffic(
            client=client,
            url=system.system.url(CONDUCTOR),
            style=arm.style,
            rate=shape.rate,
            accepted=accepted,
        )
        stack.push_async_callback(traffic.abort)
        traffic.start()
        found.began = time.time()
        await asyncio.sleep(shape.before_s)
        await _roll_out(found, system, shape)
        await asyncio.sleep(shape.after_s)
        await traffic.stop()
        found.ended, found.lag_s = time.time(), traffic.lag_s
        await _judge(found, system, traffic.sent)
        after = await system.contracts(arm.style)
        found.contracts = sorted(name for name, digest in contracts.items() if after.get(name) != digest)
    found.after = knowledge(tree.root, arm.style)
    return found


async def _roll_out(found: Found, system: Live, shape: Shape) -> None:
    stages = found.arm.stages
    groups: Sequence[Sequence[Path]] = [stages] if found.careless else [[stage] for stage in stages]
    for number, patches in enumerate(groups, 1):
        if number > 1:
            await asyncio.sleep(shape.between_stages_s)
        new = found.scenario.new if number == 1 else ()
        changed = await asyncio.to_thread(change, system.tree, new, patches)
        found.changed.append(changed)
        turns = _in_turn(system, changed)
        if found.careless == CHECKOUT_FIRST:
            turns.reverse()
        if changed.broker:
            turns.insert(0, BROKER)
        found.deployments += await _deploy(system, number, turns, changed.new, found.careless, shape)


def change(tree: Tree, new: Iterable[Path], patches: Iterable[Path]) -> Changed:
    """Add new services to the tree and apply patches; what that changes. Raises `LabError`."""
    before = tree.digests()
    tree.add(new)
    touched = together([tree.apply(patch) for patch in patches])
    return compare(before, tree.digests(), touched)


async def _deploy(
    system: Live, stage: int, turns: Sequence[str], new: Sequence[str], careless: str, shape: Shape
) -> list[Deployment]:
    waits: list[asyncio.Task[Deployment]] = []
    try:
        for name in turns:
            began = Deployment(stage, name, name in new, time.time())
            await system.deploy(name)
            waits.append(asyncio.create_task(_until_ready(system, began)))
            if not careless:
                await waits[-1]
            await asyncio.sleep(shape.careless_s if careless else shape.between_s)
        return await asyncio.gather(*waits)
    finally:
        for wait in waits:
            wait.cancel()


async def _until_ready(system: Live, deployment: Deployment) -> Deployment:
    await system.ready(deployment.name)
    return replace(deployment, ready=time.time())


def _in_turn(system: Live, changed: Changed) -> list[str]:
    """New services, then the changed ones by port, checkout last."""
    ports = {service.name: service.port_offset for service in system.system.services}

    def place(name: str) -> tuple[int, int]:
        return (2 if name == CONDUCTOR else 0 if name in changed.new else 1), ports[name]

    return sorted((*changed.new, *changed.own, *changed.plumbing), key=place)


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
            found.fates.append(Fate(each.intended, ends.get(each.order_id), each.at_first_try))
