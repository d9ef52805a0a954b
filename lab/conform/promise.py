"""Checks of the promise: one order however often and badly it was posted, and each effect exactly once."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence

from lab.client import Patience, each
from lab.conform.section import Section
from lab.conform.subject import ACCEPTED, FailedError, SkippedError, Subject, fresh_key, require
from lab.errors import LabError
from lab.ledger import IN_PROGRESS, Effect
from lab.samples import mixed_order

ORDERS = 30
SEED = 20
AT_ONCE = 5
LONGEST_LINGER_S = 0.03
FINAL_WITHIN_S = 60.0
READ_S = 30.0
SHOWN_IDS = 5

retrying = Section("docs/api.md, Repeating")
reconciling = Section("README.md, the promise; docs/api.md, The services, `/effects`")


@retrying.check(
    "retried",
    f"{ORDERS} orders, each posted several times, some cut in mid-request or left unread, stay one each.",
)
async def retried(subject: Subject) -> None:
    chance = random.Random(SEED)  # noqa: S311 - the same faults at every run, not secrets
    lingers = [chance.uniform(0, LONGEST_LINGER_S) for _ in range(ORDERS)]

    async def insist(number: int) -> None:
        order, key = mixed_order(number), fresh_key()
        if number % 3 == 0:
            await subject.drop(order, key, share=0.6, linger_s=lingers[number])
        elif number % 3 == 1:
            await subject.drop(order, key, share=1, linger_s=lingers[number])
        replies = [
            *await asyncio.gather(*(subject.place(order, key=key) for _ in range(2))),
            await subject.place(order, key=key),
        ]
        for reply in replies:
            require(reply.status in ACCEPTED, f"{reply} (201 or 202 was due)")
        ids = sorted({reply.order_id() for reply in replies})
        require(len(ids) == 1, f"{len(ids)} orders for one key: {', '.join(ids)}")

    await each(range(ORDERS), insist, AT_ONCE)


@reconciling.check("final", "Every order that was accepted becomes completed or needs attention.")
async def final(subject: Subject) -> None:
    ends = time.monotonic() + FINAL_WITHIN_S
    unfinished: list[str] = []

    async def look(order_id: str) -> None:
        document = await subject.read_final(order_id, ends - time.monotonic())
        if document.get("status") == IN_PROGRESS:
            unfinished.append(order_id)

    await each(list(subject.promised), look, AT_ONCE)
    seen = f"{len(unfinished)} of {len(subject.promised)} are in progress after {FINAL_WITHIN_S:.0f} s"
    require(not unfinished, f"{seen}: {_some(unfinished)}")


@reconciling.check("effects-once", "Each order has each effect that it is owed exactly once, and no other.")
async def effects_once(subject: Subject) -> None:
    found = await _read(subject)
    books = subject.target.reconcile(subject.promised, found)
    wrong = [
        f"{len(ids)} {kind} at {service}: {_some(ids)}"
        for kind, by_service in books["ids"].items()
        for service, ids in by_service.items()
        if ids
    ]
    require(not wrong, f"of {len(subject.promised)} orders, {'; '.join(wrong)}")


@reconciling.check(
    "no-orphans", "No service has acted on an order of which no client was told (on a quiet system)."
)
async def no_orphans(subject: Subject) -> None:
    for service, found in (await _read(subject)).items():
        ids = {effect.order_id for effect in found} - subject.promised.keys() - subject.before[service]
        seen = f"{len(ids)} at {service}: {_some(sorted(ids))} (if others place orders here, stop them)"
        require(not ids, seen)


async def read_before(subject: Subject) -> None:
    """Note what ids the services show at first. Raises `LabError` where they cannot be read."""
    found = await subject.target.read_effects(subject.client, Patience(READ_S))
    subject.before = {name: frozenset(effect.order_id for effect in told) for name, told in found.items()}


async def _read(subject: Subject) -> Mapping[str, Sequence[Effect]]:
    if not subject.target.effects:
        raise SkippedError("not checked: no `/effects` are known (give --target FILE.toml, or --port-base)")
    try:
        return await subject.target.read_effects(subject.client, Patience(READ_S))
    except LabError as error:
        raise FailedError(str(error)) from error


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else "")
