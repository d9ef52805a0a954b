"""A lone client: one order at a time, each waited for until all its steps are final.

What it measures is how long a checkout takes on an idle system. It refuses to count an order that is not
final when the answer comes.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.bench.connections import Connections, Due
from lab.bench.generator import DRAIN_TIMEOUT_S
from lab.bench.orders import Origin, PreparedOrder, encode_order, read_accepted
from lab.bench.wire import Reply

WAIT_S = 10
PAUSES_S = (0.01, 0.03)  # uneven, so that no poll of the server's falls into step with it


@dataclass(frozen=True, slots=True)
class LonePlan:
    """So many orders of one style by one client, with a short pause after each."""

    port: int
    style: str
    warm_up: int
    orders: int
    seed: int


@dataclass(frozen=True, slots=True)
class Lone:
    """What came of a lone plan: all accepted ids, and the latency to completion of each order but warm-up."""

    order_ids: list[str]
    latency_ms: list[float]
    errors: dict[str, int]


async def run_lone(plan: LonePlan, orders: Sequence[PreparedOrder]) -> Lone:
    """Runs a lone plan: closed loop, one client that waits until all steps are final. Raises OSError."""
    chance = random.Random(plan.seed)  # noqa: S311 - pauses, not secrets
    loop = asyncio.get_running_loop()
    order_ids: list[str] = []
    latency_ms: list[float] = []
    errors: Counter[str] = Counter()
    reply: asyncio.Future[tuple[Reply | None, str | None]] = loop.create_future()

    def hear(_: Due, answer: Reply | None, slug: str | None) -> None:
        reply.set_result((answer, slug))

    origin = Origin("127.0.0.1", plan.port)
    connections = Connections(hear)
    await connections.open(plan.port, 1)
    try:
        for number in range(plan.warm_up + plan.orders):
            reply = loop.create_future()
            body = orders[number % len(orders)].body
            sent_at = time.perf_counter()
            due = Due(sent_at, encode_order(origin, plan.style, body, f"wait={WAIT_S}"))
            connections.send(due)
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                answer, slug = await reply
            took_ms = (time.perf_counter() - sent_at) * 1000
            order_id, slug = (None, slug) if answer is None else read_accepted(answer, plan.style)
            if order_id is not None:
                order_ids.append(order_id)
            if order_id is None or answer is None or answer.status != 201:
                errors[slug or "not-final"] += 1
            elif number >= plan.warm_up:
                latency_ms.append(took_ms)
            await asyncio.sleep(chance.uniform(*PAUSES_S))
    finally:
        connections.close()
    return Lone(order_ids, latency_ms, dict(errors))
