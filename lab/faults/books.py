"""Reads the books of an arm after a fault: which orders every intention led to, and what was done for them.

An order of an arm with books is known again by what the lab wrote into it (the name that it is shipped to),
so that a key which made two orders is seen, whatever the arm itself remembers of keys. It refuses to read
before all is quiet, or patience is out.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from lab import broker
from lab.arms import read_book
from lab.client import Patience
from lab.coupling import traffic
from lab.errors import LabError
from lab.faults.catalogue import Load
from lab.faults.judging import Intention
from lab.ledger import Effect, Order
from lab.reading import list_checkouts, parse_order, read_all_effects, wait_until_quiet
from lab.samples import mixed_order
from lab.system import System
from lab.traffic import Sent

READ = Patience(30.0)
# So long without a new effect: nothing comes any more from an arm that cannot be asked. Under overload the
# longest pause between two effects was 0.6 s; after the last one none came in 20 s, nor with half failing.
STILL_S = 3.0
POLL_S = 0.5
POISON = {"sku": "REFUSE-ME", "quantity": 1, "unit_price_minor": 100}


@dataclass(frozen=True)
class Books:
    """What an arm and its services say in the end; `orders` is None for an arm without books.

    `trouble` is why it may not be the end.
    """

    intentions: Sequence[Intention]
    effects: Mapping[str, Sequence[Effect]]
    orders: Mapping[str, Order] | None
    attempts_per_order: float | None
    trouble: str | None = None


def make_key(seed: int, number: int) -> str:
    """The Idempotency-Key of an order, the same for every arm."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - to be made again, not secret
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def make_order(load: Load, number: int) -> dict[str, Any]:
    """The body of an order, the same for every arm, with its mark."""
    order = mixed_order(number)
    order["ship_to"] = {**order["ship_to"], "name": _mark(number)}
    if load.is_poison(number):
        order["lines"] = [*order["lines"], POISON]
    return order


async def read_durable(
    client: httpx.AsyncClient,
    system: System,
    sent: Sequence[Sent],
    load: Load,
    patience_s: float,
    acknowledged: Callable[[], Awaitable[None]],
) -> Books:
    """The books of an arm that keeps some, once no order is in progress, or patience is out.

    `acknowledged` is awaited then: it returns once no event is left that may be heard, and done, again, or
    raises `LabError`.
    """
    await wait_until_quiet(client, system, Patience(patience_s, try_s=5.0))
    trouble = None
    try:
        await acknowledged()
    except LabError as error:  # the books say what is stuck all the same
        trouble = str(error)
    told = [order async for order in list_checkouts(client, system, READ)]
    effects = await read_all_effects(client, system, READ)
    orders = {order.order_id: order for order in map(parse_order, told)}
    return Books(_intentions(sent, load, _by_mark(told)), effects, orders, attempts(told), trouble)


async def until_acknowledged(client: httpx.AsyncClient, system: System) -> None:
    """Wait until no event is left that the broker would deliver again: it might be done twice.

    Raises `LabError` where one still is after some twenty seconds.
    """
    async with broker.connect(system) as jetstream:
        await traffic.count(client, system, jetstream)


async def read_naive(
    client: httpx.AsyncClient, system: System, sent: Sequence[Sent], load: Load, patience_s: float, book: Path
) -> Books:
    """The same of an arm without books, once no effect comes any more; the lab's book tells of its orders."""
    effects = await _until_still(client, system, patience_s)
    made = {key.strip('"'): order_ids for key, order_ids in read_book(book).items()}
    by_number = {each.number: made.get(each.key, ()) for each in sent}
    return Books(_intentions(sent, load, by_number), effects, None, None)


def attempts(orders: Iterable[Mapping[str, Any]]) -> float | None:
    """The tries of an order, those of all its steps together, on average; None: there are no orders."""
    tries = [sum(int(step["attempts"]) for step in order["steps"].values()) for order in orders]
    return sum(tries) / len(tries) if tries else None


async def _until_still(
    client: httpx.AsyncClient, system: System, patience_s: float
) -> dict[str, list[Effect]]:
    deadline = time.monotonic() + patience_s
    effects = await read_all_effects(client, system, READ)
    since = time.monotonic()
    while time.monotonic() < min(deadline, since + STILL_S):
        await asyncio.sleep(POLL_S)
        seen = await read_all_effects(client, system, READ)
        if _count(seen) != _count(effects):
            effects, since = seen, time.monotonic()
    return effects


def _count(effects: Mapping[str, Sequence[Effect]]) -> int:
    return sum(map(len, effects.values()))


def _intentions(sent: Sequence[Sent], load: Load, made: Mapping[int, Iterable[str]]) -> list[Intention]:
    intentions = []
    for each in sorted(sent, key=lambda each: each.number):
        known = frozenset(made.get(each.number, ()))
        intentions.append(
            Intention(
                key=each.key,
                intended=each.intended,
                member=bool(mixed_order(each.number)["customer"]["rewards_member"]),
                order_ids=known if each.order_id is None else known | {each.order_id},
                told=each.order_id,
                tries=each.tries,
                poison=load.is_poison(each.number),
            )
        )
    return intentions


def _mark(number: int) -> str:
    return f"Intention {number}"


def _by_mark(orders: Iterable[Mapping[str, Any]]) -> dict[int, list[str]]:
    made: dict[int, list[str]] = {}
    for order in orders:
        _, _, number = str(order["ship_to"]["name"]).rpartition(" ")
        made.setdefault(int(number), []).append(str(order["order_id"]))
    return made
