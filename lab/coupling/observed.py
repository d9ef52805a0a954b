"""What orders cost and who learns what of them: marked orders are placed, then looked for.

By the wire: in orchestration what checkout's commands tell, in choreography the event as the stream holds it,
which whoever hears is sent whole, whether it reads it or not. By the stores: what is found in the databases,
the mail, the broker's files and the logs afterwards. What is not found may be there all the same, see
`lab.coupling.markers`. It refuses to observe a system that is at work for others.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from lab import broker
from lab.broker_config import read_rights
from lab.coupling.graph import Knowledge
from lab.coupling.heard import DURABLE, meets
from lab.coupling.knowledge import ORCHESTRATION, knowledge
from lab.coupling.markers import FACTS, MEMBERSHIP, Marked, covered, marked_order
from lab.coupling.stores import Held, held, stores_of
from lab.coupling.traffic import Counts, Message, count, messages_since
from lab.coupling.wire import STORED, Sighting, commands
from lab.errors import FAILED, LabError
from lab.outcome import FINAL
from lab.placing import Plan, Silent, place_orders
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, MAILBOX, System

ORDERS = 4  # members and others by turns
FOLLOW_S = 60.0
MAIL_WITHIN_S = 10.0
POLL_S = 0.25
BY_BEING_TOLD = "by being told of members only"


@dataclass(frozen=True, order=True)
class Learnt:
    """A fact that reached a service, of how many of the marked orders; `how` it is known that it did.

    `reads`: whether the service's own code reads it; None where the code does not tell.
    """

    service: str
    fact: str
    orders: int
    how: str
    reads: bool | None = None


@dataclass(frozen=True)
class Messages:
    """How many messages an order left in a stream, and how many deliveries of them each consumer had."""

    stream: str
    stored: float
    delivered: Mapping[str, float]


@dataclass(frozen=True)
class Observed:
    """What was seen of `orders` marked orders, of which `members` are of members; counts are per order."""

    style: str
    orders: int
    members: int
    calls: Mapping[str, float]
    messages: Sequence[Messages]
    learnt: Sequence[Learnt]
    held: Sequence[Held]

    def as_document(self) -> dict[str, Any]:
        """All of it as plain JSON values, with sums of calls, messages and deliveries per order."""
        return {
            "style": self.style,
            "orders": self.orders,
            "members": self.members,
            "calls": dict(self.calls),
            "calls_per_order": sum(self.calls.values()),
            "messages": [asdict(each) for each in self.messages],
            "messages_per_order": sum(each.stored for each in self.messages),
            "deliveries_per_order": sum(sum(each.delivered.values()) for each in self.messages),
            "learnt": [asdict(each) for each in self.learnt],
            "held": [each.as_document() for each in self.held],
        }


@dataclass(frozen=True)
class _Placed:
    """Marked orders that are final, with their ids, and the names of those who were to hear of each."""

    orders: Sequence[Marked]
    ids: Sequence[str]
    told: Sequence[frozenset[str]]


async def observe(
    system: System, client: httpx.AsyncClient, root: Path, style: str, orders: int = ORDERS
) -> Observed:
    """Place marked orders of one style on the system, which runs the tree at `root`, and say what was seen.

    Their ids are added to the system's accepted file. Raises `LabError` where an order is not accepted or
    does not become final, somebody else is at work, or a store cannot be read.
    """
    graph = await asyncio.to_thread(knowledge, root, style)
    async with broker.connect(system) as jetstream:
        before = await count(client, system, jetstream)
        placed = await _place(system, client, style, orders)
        after = await count(client, system, jetstream)
        if after.accepted - before.accepted != orders:
            raise LabError("somebody else places orders, too: nothing can be counted", FAILED)
        messages = await messages_since(jetstream, before, after, placed.ids)
    if style == ORCHESTRATION:
        known = await asyncio.to_thread(lambda: list(commands(root, graph, placed.orders)))
        wire = [each for each in known if each.service in placed.told[each.number]]
        wire += _implied(placed)
    else:
        wire = list(_sent(root, placed, messages, after))
    kept = await _held(system, placed.orders)
    calls = {name: (n - before.calls.get(name, 0.0)) / orders for name, n in sorted(after.calls.items())}
    return Observed(
        style,
        orders,
        sum(order.is_member for order in placed.orders),
        {name: per_order for name, per_order in calls.items() if per_order},
        _messages(before, after, messages, orders),
        _learnt(graph, wire),
        kept,
    )


async def _place(system: System, client: httpx.AsyncClient, style: str, number: int) -> _Placed:
    orders = [marked_order(rewards_member=n % 2 == 0) for n in range(number)]
    plan = Plan(
        system.url(CONDUCTOR),
        lambda n: json.dumps(orders[n].body).encode(),
        count=number,
        styles=(style,),
        follow_s=FOLLOW_S,
    )
    async with SyncedLines(system.accepted_file) as lines:
        outcome = await place_orders(client, plan, lines, Silent())
    final = {
        order["customer"]["name"]: order for order in outcome.orders.values() if order["status"] in FINAL
    }
    try:
        found = [final[order.body["customer"]["name"]] for order in orders]
    except KeyError:
        raise LabError(f"not all marked orders became final: {'; '.join(outcome.errors)}", FAILED) from None
    told = [frozenset(n for n, s in order["steps"].items() if s["status"] != "skipped") for order in found]
    return _Placed(orders, [order["order_id"] for order in found], told)


def _implied(placed: _Placed) -> Iterator[Sighting]:
    """Who is told of members' orders alone learns of each that the customer is one."""
    members = {number for number, order in enumerate(placed.orders) if order.is_member}
    for service in frozenset[str]().union(*placed.told):
        numbers = {number for number, told in enumerate(placed.told) if service in told}
        if numbers == members and len(members) < len(placed.orders):
            yield from (Sighting(service, number, MEMBERSHIP, BY_BEING_TOLD) for number in numbers)


def _sent(root: Path, placed: _Placed, messages: Iterable[Message], counts: Counts) -> Iterator[Sighting]:
    """What each consumer was sent: the messages on its subject, whole."""
    owners = {
        tuple(right.removeprefix(DURABLE).split(".")[:2]): name
        for name, rights in read_rights(root).items()
        for right in rights.publish
        if right.startswith(DURABLE)
    }
    for message in messages:
        told = _data(message.content)
        for consumer in counts.consumers:
            if consumer.stream != message.stream or not meets(consumer.subject, message.subject):
                continue
            service = owners.get((consumer.stream, consumer.name), consumer.name)
            for number in (n for n, key in enumerate(placed.ids) if key.encode() in message.content):
                for fact, paths in placed.orders[number].paths_in(told).items():
                    yield Sighting(service, number, fact, STORED, paths)


def _data(content: bytes) -> Any:
    """What an event says: its data, without the envelope."""
    try:
        event = json.loads(content)
    except ValueError as error:
        raise LabError(f"the stream holds what is no event: {error}", FAILED) from error
    return event.get("data", event) if isinstance(event, dict) else event


def _learnt(graph: Knowledge, wire: Iterable[Sighting]) -> list[Learnt]:
    seen: dict[tuple[str, str, str], list[Sighting]] = {}
    for each in wire:
        seen.setdefault((each.service, each.fact, each.how), []).append(each)
    found = []
    for (service, fact, how), sightings in seen.items():
        paths = frozenset[str]().union(*(each.paths for each in sightings))
        numbers = {each.number for each in sightings}
        found.append(Learnt(service, fact, len(numbers), how, _reads(graph, service, paths)))
    return sorted(found, key=lambda each: (each.service, FACTS.index(each.fact)))


def _reads(graph: Knowledge, service: str, paths: Set[str]) -> bool | None:
    """Whether the service's own code reads what stands at these paths."""
    fields = [name for link in graph.links if link.target == service for name in link.reads]
    return any(covered(path, fields) for path in paths) if fields and paths else None


def _messages(before: Counts, after: Counts, messages: Sequence[Message], orders: int) -> list[Messages]:
    found = []
    for stream in after.streams:
        stored = sum(message.stream == stream for message in messages) / orders
        delivered = {
            each.name: (each.delivered - before.delivered(each)) / orders
            for each in after.consumers
            if each.stream == stream and each.delivered > before.delivered(each)
        }
        if stored or delivered:
            found.append(Messages(stream, stored, delivered))
    return found


async def _held(system: System, orders: Sequence[Marked]) -> list[Held]:
    """What the stores keep; where there is a mailbox, once all the mail has come, or after ten seconds."""
    deadline = time.monotonic() + MAIL_WITHIN_S
    while True:
        found = await asyncio.to_thread(lambda: held(stores_of(system), orders))
        mailed = max((each.orders for each in found if each.store == MAILBOX), default=0)
        if mailed == len(orders) or not _has_mailbox(system) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(POLL_S)


def _has_mailbox(system: System) -> bool:
    try:
        processes = json.loads(system.supervisor_file.read_text())["processes"]
        return any(each["name"] == MAILBOX for each in processes)
    except (OSError, ValueError, KeyError, TypeError):
        return False
