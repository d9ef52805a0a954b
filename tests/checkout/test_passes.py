"""Passes: what ends one, when the order is due again, and that no claim is dropped. Nothing here is timed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from checkout.orders import Emission, Order, Progress
from tests.checkout.conftest import Opening
from tests.checkout.placements import NOW, failure, placement, up_to
from tests.checkout.world import World, eventually, no_pass_runs

EMISSION = Emission("orders/outcomes", 7, NOW)
LATER = Emission("orders/new-outcomes", 8, NOW + timedelta(hours=1))
STYLE = "choreography"


async def accepted(world: World) -> tuple[Order, Progress]:
    """An order with an emission, under a lease."""
    placed = placement(style=STYLE)
    await world.journal.accept(placed)
    return placed.order, replace(placed.progress, emission=EMISSION)


def once(gate: asyncio.Event, reached: Callable[[Progress], Progress]) -> Callable[..., Awaitable[Progress]]:
    async def perform(order: Order, progress: Progress) -> Progress:
        await gate.wait()
        return reached(progress)

    return perform


@pytest.mark.parametrize(
    ("style", "reached", "is_due"),
    [
        (STYLE, EMISSION, True),
        (STYLE, None, True),
        (STYLE, LATER, False),  # it has been emitted to the streams that there are now
        ("orchestration", None, False),
    ],
)
async def test_a_pass_in_vain_during_which_what_it_needs_came_back_is_repeated_at_once(
    opening: Opening, style: str, reached: Emission | None, is_due: bool
) -> None:
    async with opening(resuming=False, resume_min_s=600) as world:
        order, progress = await accepted(world)
        gate = asyncio.Event()
        world.passes.start("later", order, progress, once(gate, lambda seen: replace(seen, emission=reached)))
        await asyncio.sleep(0)
        world.passes.release(style, LATER.stamp)
        gate.set()
        await eventually(no_pass_runs)
        assert len(await world.journal.claim(up_to(1), 60)) == is_due


async def test_an_order_that_is_released_while_the_end_of_its_pass_is_written_is_due_all_the_same(
    opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opening(resuming=False, resume_min_s=600) as world:
        order, progress = await accepted(world)
        gate = asyncio.Event()
        gate.set()
        end_pass = world.journal.end_pass

        async def released_meanwhile(*told: Any) -> None:
            if told[1] > 0:
                world.passes.release(STYLE, LATER.stamp)
                assert await world.journal.make_all_due(STYLE) == 0  # it is still leased
            await end_pass(*told)

        monkeypatch.setattr(world.journal, "end_pass", released_meanwhile)
        world.passes.start("later", order, progress, once(gate, lambda seen: seen))
        await eventually(no_pass_runs)
        assert len(await world.journal.claim(up_to(1), 60)) == 1


async def test_an_order_that_is_taken_up_while_a_pass_over_it_runs_gets_the_next_pass_after_it(
    opening: Opening,
) -> None:
    async with opening(resuming=False, resume_min_s=600) as world:
        order, progress = await accepted(world)
        gate, seen = asyncio.Event(), list[int]()

        async def perform(order: Order, progress: Progress) -> Progress:
            seen.append(progress.retries)
            await gate.wait()
            return progress

        for retries in range(2):
            world.passes.start("later", order, replace(progress, retries=retries), perform)
            await asyncio.sleep(0)
        assert seen == [0]
        gate.set()
        await eventually(lambda: seen == [0, 1])
        await eventually(no_pass_runs)
        assert world.passes.room(STYLE) == world.settings.max_later_passes


async def test_a_pass_that_began_before_a_retry_does_not_undo_it(opening: Opening) -> None:
    async with opening(resuming=False, resume_min_s=600) as world:
        order, progress = await accepted(world)
        gate = asyncio.Event()
        world.passes.start("later", order, progress, once(gate, lambda seen: seen))
        await asyncio.sleep(0)
        await world.journal.hear([failure(order.order_id, name) for name in progress.steps])
        await world.journal.retry(order.order_id)
        gate.set()
        await eventually(no_pass_runs)
        [(_, due)] = await world.journal.claim(up_to(1), 60)
        assert (due.retries, due.emission, due.passes) == (1, None, 0)


async def test_no_order_is_accepted_that_would_wait_too_long_for_its_turn(opening: Opening) -> None:
    async with opening(max_service_wait_s=2) as world:
        waits = {"orchestration": 2.5}
        world.passes.wait_s["orchestration"] = lambda: waits["orchestration"]
        refused = await world.place(params={"style": "orchestration"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["type"].endswith("/overloaded")
        assert (await world.place(params={"style": STYLE})).status_code == 201
        waits["orchestration"] = 2.0
        assert (await world.place(params={"style": "orchestration"})).status_code == 201
