"""The batcher: order kept, each item handled and answered once, whatever its callers and handler do."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servicekit.batching import Batcher, BatcherClosedError, QueueFullError


class HandlerError(Exception):
    """What a whole batch may come to."""


class ItemError(Exception):
    """What a single item may come to."""


@dataclass
class Handler:
    """Keeps the batches that it was given; goes on only when told to; doubles each item."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    batches: list[list[int]] = field(default_factory=list)
    bad: frozenset[int] = frozenset()
    failing: frozenset[int] = frozenset()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        number = len(self.batches)
        self.batches.append(list(items))
        await self.gate.wait()
        if number in self.failing:
            raise HandlerError
        return [ItemError() if item in self.bad else 2 * item for item in items]

    @property
    def handled(self) -> list[int]:
        return [item for batch in self.batches for item in batch]


async def turns(number: int = 5) -> None:
    """Let everything that can run do so."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_lone_item_goes_at_once_and_the_next_batch_gathers_meanwhile() -> None:
    handler = Handler()
    sizes: list[int] = []
    batcher = Batcher(handler, max_items=3, max_queue=10, observe=sizes.append)
    tasks = [asyncio.create_task(batcher.submit(0))]
    await turns()
    tasks += [asyncio.create_task(batcher.submit(item)) for item in range(1, 6)]
    await turns()
    assert handler.batches == [[0]]
    assert len(batcher) == 5
    handler.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
    assert handler.batches == [[0], [1, 2, 3], [4, 5]]
    assert sizes == [1, 3, 2]


async def test_one_item_more_than_the_queue_holds_is_turned_away_and_nothing_else() -> None:
    handler = Handler()
    batcher = Batcher(handler, max_items=1, max_queue=2)
    tasks = [asyncio.create_task(batcher.submit(0))]
    await turns()
    tasks += [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
    await turns()
    with pytest.raises(QueueFullError):
        await batcher.submit(3)
    handler.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]
    assert await batcher.submit(5) == 10
    assert handler.handled == [0, 1, 2, 5]


async def test_a_handler_that_raises_gives_its_error_to_that_batch_alone() -> None:
    handler = Handler(failing=frozenset({0}))
    handler.gate.set()
    batcher = Batcher(handler, max_items=2, max_queue=10)
    results = await asyncio.gather(*(batcher.submit(item) for item in range(4)), return_exceptions=True)
    assert [type(result) for result in results] == [HandlerError, HandlerError, int, int]


async def test_a_wrong_number_of_results_is_an_error_for_every_item_of_the_batch() -> None:
    async def short(items: Sequence[int]) -> list[int]:
        return list(items[1:])

    batcher: Batcher[int, int] = Batcher(short, max_items=2, max_queue=10)
    results = await asyncio.gather(*(batcher.submit(item) for item in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError, RuntimeError]


async def test_closing_waits_for_what_was_taken_and_takes_no_more() -> None:
    handler = Handler()
    batcher = Batcher(handler, max_items=2, max_queue=10)
    tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
    await turns()
    closing = asyncio.create_task(batcher.aclose())
    await turns()
    assert not closing.done()
    with pytest.raises(BatcherClosedError):
        await batcher.submit(3)
    handler.gate.set()
    await closing
    assert [task.result() for task in tasks] == [0, 2, 4]
    await batcher.aclose()


ACTIONS = st.lists(
    st.one_of(st.just("submit"), st.just("turn"), st.just("open"), st.just("shut"), st.integers(0, 30)),
    max_size=60,
)


@settings(deadline=None)
@given(
    actions=ACTIONS,
    max_items=st.integers(1, 4),
    max_queue=st.integers(1, 6),
    bad=st.frozensets(st.integers(0, 30), max_size=5),
    failing=st.frozensets(st.integers(0, 10), max_size=3),
)
def test_nothing_is_lost_repeated_reordered_or_answered_with_anothers_result(
    actions: list[Any],
    max_items: int,
    max_queue: int,
    bad: frozenset[int],
    failing: frozenset[int],
) -> None:
    """`submit` adds the next item, a number cancels that item's caller, the rest moves time and handler."""

    async def run() -> None:
        handler = Handler(bad=bad, failing=failing)
        batcher = Batcher(handler, max_items=max_items, max_queue=max_queue)
        tasks: list[asyncio.Task[int]] = []
        cancelled: set[int] = set()
        for action in actions:
            if action == "submit":
                tasks.append(asyncio.create_task(batcher.submit(len(tasks))))
                await asyncio.sleep(0)  # it is in the queue, or turned away
            elif action == "turn":
                await turns()
            elif action == "open":
                handler.gate.set()
            elif action == "shut":
                handler.gate.clear()
            elif action < len(tasks) and not tasks[action].done():
                tasks[action].cancel()
                cancelled.add(action)
            assert len(batcher) <= max_queue
        handler.gate.set()
        async with asyncio.timeout(10):
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await batcher.aclose()
        refused = {n for n, result in enumerate(results) if isinstance(result, QueueFullError)}
        assert handler.handled == [n for n in range(len(tasks)) if n not in refused]
        assert all(1 <= len(batch) <= max_items for batch in handler.batches)
        lost = {item for number in failing for item in (handler.batches[number:] or [[]])[0]}
        for n, result in enumerate(results):
            if n in refused:
                continue
            if n in cancelled:
                assert isinstance(result, asyncio.CancelledError)
            elif n in lost:
                assert isinstance(result, HandlerError)
            elif n in bad:
                assert isinstance(result, ItemError)
            else:
                assert result == 2 * n

    asyncio.run(run())
