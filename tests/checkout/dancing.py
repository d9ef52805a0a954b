"""Choreographed orders as tests place them, and what the broker has been given of them."""

import asyncio
from typing import Any

import httpx
import orjson

from tests.checkout.dancers import ORDERS
from tests.checkout.world import RESULTS, World, eventually, no_pass_runs

NAMES = tuple(RESULTS)
ASYNC = {"Prefer": "respond-async"}


async def everybody_takes_part(world: World) -> None:
    await eventually(lambda: set(world.participants.known()) == set(NAMES))


async def place(world: World, **options: Any) -> httpx.Response:
    return await world.place(params={"style": "choreography"}, **options)


async def placed_now(world: World) -> str:
    order_id: str = (await place(world, headers=ASYNC)).json()["order_id"]
    return order_id


def emitted(world: World, order_id: str) -> list[dict[str, Any]]:
    """Every event of an order that the stream has been given and still holds."""
    events = [orjson.loads(each) for each in world.broker.published(ORDERS)]
    return [event for event in events if event["subject"] == order_id]


async def pauses(world: World, count: int = 5) -> None:
    """Time for so many looks at the broker; passes recur more often."""
    await asyncio.sleep(count * world.settings.broker_poll_s)


async def another_pass(world: World) -> None:
    """Let the passes that run end, and one more pass over every unfinished order begin."""
    await pauses(world)
    await eventually(no_pass_runs)
    await world.journal.make_all_due("choreography")
