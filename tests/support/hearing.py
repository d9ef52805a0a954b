"""One participant's part, without a process: events go in, and what it tells of them comes out."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from servicekit.bus import Bus, Stream
from servicekit.participant import Participant
from tests.support.fake_bus import FakeBroker, FakeBus

PATIENCE_S = 20
POLL_S = 0.002
GOLDEN_EVENT = Path(__file__).parent.parent / "contract" / "golden" / "order_created.event.json"
ORDERS = Stream("ORDERS", ("orders.created",))
OUTCOMES = Stream("OUTCOMES", ("outcomes.*",))
DEAD_LETTERS = Stream("DEAD_LETTERS", ("dead_letters.*.*",))
# What any participant must be told; the database and the bus are given to it open.
GIVEN: dict[str, Any] = {
    "database_url": "sqlite:///not-opened.db",
    "operator_token": "operator-token-0123",
    "conductor_token": "conductor-token-0123",
    "nats_url": "nats://127.0.0.1:1",
    "refusal_pause_s": 0.001,
}


def order_created(order_id: str = "o1", *, member: bool = True, retry: int = 0, **changes: Any) -> bytes:
    """The golden event for another order, with other data where it is given."""
    event = orjson.loads(GOLDEN_EVENT.read_bytes())
    event |= {"id": order_id, "subject": order_id, "retry": retry}
    event["data"]["order_id"] = order_id
    event["data"]["customer"]["rewards_member"] = member
    event["data"] |= changes
    return orjson.dumps(event)


@dataclass(frozen=True)
class Told:
    """What a participant has told of the events that it heard, and how often it tried each of them."""

    outcomes: Sequence[dict[str, Any]]
    dead_letters: Sequence[dict[str, Any]]
    tries: Sequence[int]

    def statuses(self) -> dict[str, str]:
        """What each has come to, by key."""
        return {key: data["status"] for key, data in self.data().items()}

    def data(self) -> dict[str, dict[str, Any]]:
        """Each outcome's data, by key; what was told again was told the same."""
        told = defaultdict(list)
        for event in self.outcomes:
            told[event["subject"]].append(event["data"])
        assert all(each.count(each[0]) == len(each) for each in told.values())
        return {key: each[0] for key, each in told.items()}


async def hear(participant: Callable[[Bus], Participant[Any]], *payloads: bytes) -> Told:
    """Let a participant hear these events, in one batch, until it has settled each."""
    broker = FakeBroker()
    bus = FakeBus(broker)
    for stream in (ORDERS, OUTCOMES, DEAD_LETTERS):
        await bus.ensure_stream(stream)
    for payload in payloads:
        await bus.publish("orders.created", payload)
    running = asyncio.create_task(participant(cast("Bus", bus)).run())
    durables = broker.streams["ORDERS"].durables
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(len(each.settled) == len(payloads) for each in durables.values()) or not durables:
                assert not running.done(), running
                await asyncio.sleep(POLL_S)
    finally:
        running.cancel()
        await asyncio.wait([running])
    [durable] = durables.values()
    return Told(
        [orjson.loads(event) for event in broker.published("OUTCOMES")],
        [orjson.loads(event) for event in broker.published("DEAD_LETTERS")],
        [durable.tries[sequence] for sequence in range(1, len(payloads) + 1)],
    )


async def hear_a_bad_one(participant: Callable[[Bus], Participant[Any]], bad: bytes) -> Told:
    """Let a participant hear the event of order `bad` between two good ones: it fails, and it alone."""
    told = await hear(participant, order_created("a"), bad, order_created("b"))
    assert told.statuses() == {"a": "succeeded", "bad": "failed", "b": "succeeded"}
    assert told.tries == [1, 5, 1]
    assert [letter["subject"] for letter in told.dead_letters] == ["bad"]
    return told
