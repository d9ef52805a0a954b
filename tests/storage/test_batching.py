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
    batcher = Batcher(handler, max_items=3, max_queue=10, observe=lambda size, _: sizes.append(size))
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


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing can run, and then at once, up to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        loop: Any = self  # asyncio's own fields: this is for tests
        if not loop._ready and loop._scheduled:
            self.now = max(self.now, loop._scheduled[0]._when)
        super()._run_once()  # type: ignore[misc]


@dataclass
class Timed:
    """A handler whose batches take as long as they are told to, by their first item; notes their starts."""

    took_s: dict[int, float] = field(default_factory=dict)
    usual_s: float = 0.080
    began: list[tuple[float, list[int]]] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.began.append((round(asyncio.get_running_loop().time(), 6), list(items)))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.took_s.get(items[0], self.usual_s))
        self.running -= 1
        return [2 * item for item in items]


def run_timed(batcher: Batcher[int, int], arrivals: Sequence[float]) -> list[int]:
    """Submit an item, by its number, at each of these times; the results in the order of the items."""

    async def late(number: int, at: float) -> int:
        await asyncio.sleep(at)
        return await batcher.submit(number)

    async def run() -> list[int]:
        return await asyncio.gather(*(late(number, at) for number, at in enumerate(arrivals)))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(run())


def test_an_item_waits_for_company_only_while_the_newest_batch_is_young() -> None:
    handler = Timed()
    batcher: Batcher[int, int] = Batcher(handler, max_items=10, max_queue=10, in_flight=8, young_s=0.005)
    assert run_timed(batcher, [0, 0.001, 0.002, 0.020, 0.0201]) == [0, 2, 4, 6, 8]
    assert handler.began == [(0, [0]), (0.005, [1, 2]), (0.020, [3]), (0.025, [4])]


def test_a_batch_that_hangs_holds_up_nobody_but_its_own() -> None:
    handler = Timed(took_s={0: 60.0}, usual_s=0.001)
    batcher: Batcher[int, int] = Batcher(handler, max_items=10, max_queue=10, in_flight=2, young_s=0.005)
    run_timed(batcher, [0, 0.001, 0.010, 0.030])
    assert [at for at, _ in handler.began] == [0, 0.005, 0.010, 0.030]


def test_what_comes_while_a_quick_batch_runs_goes_when_it_ends() -> None:
    handler = Timed(usual_s=0.002)
    batcher: Batcher[int, int] = Batcher(handler, max_items=10, max_queue=10, in_flight=8, young_s=0.005)
    run_timed(batcher, [0, 0.001, 0.0015, 0.010])
    assert handler.began == [(0, [0]), (0.002, [1, 2]), (0.010, [3])]


def test_items_that_come_far_apart_wait_for_no_company() -> None:
    handler = Timed()
    batcher: Batcher[int, int] = Batcher(handler, max_items=10, max_queue=10, in_flight=32, young_s=0.005)
    run_timed(batcher, [0.020 * number for number in range(10)] + [0.1805])
    assert handler.began[-2:] == [(0.180, [9]), (0.1805, [10])]


def test_items_that_come_close_together_again_soon_wait_again() -> None:
    handler = Timed(usual_s=0.010)
    batcher: Batcher[int, int] = Batcher(handler, max_items=10, max_queue=10, in_flight=32, young_s=0.005)
    apart = [0.020 * number for number in range(100)] + [60.0]
    run_timed(batcher, apart + [60.0 + 0.00113 * number for number in range(1, 60)])
    sizes = [len(items) for at, items in handler.began if at >= 60.0]
    assert sizes[:5] == [1] * 5
    assert min(sizes[-6:-1]) >= 4


def test_a_full_batch_waits_for_no_company_but_for_its_turn() -> None:
    handler = Timed()
    batcher: Batcher[int, int] = Batcher(handler, max_items=2, max_queue=10, in_flight=2, young_s=0.005)
    run_timed(batcher, [0, 0.001, 0.001, 0.002, 0.002])
    assert handler.began == [(0, [0]), (0.001, [1, 2]), (0.080, [3, 4])]


def test_a_batch_is_no_heavier_than_allowed_but_for_a_single_item() -> None:
    handler = Timed(usual_s=0.001)
    batcher: Batcher[int, int] = Batcher(
        handler, max_items=10, max_queue=10, max_weight=10, weigh=lambda item: item
    )
    run_timed(batcher, [0.0] * 7)  # which weigh 0 to 6
    assert [items for _, items in handler.began] == [[0, 1, 2, 3, 4], [5], [6]]


def test_items_that_come_together_stay_together() -> None:
    async def run() -> tuple[list[Any], list[list[int]]]:
        handler = Handler(bad=frozenset({4}))
        batcher: Batcher[int, int] = Batcher(handler, max_items=3, max_queue=10)
        first = asyncio.create_task(batcher.submit(0))
        await turns()
        lots = [asyncio.create_task(batcher.submit_all(lot)) for lot in ([1, 2], [3, 4], [5])]
        await turns()
        handler.gate.set()
        await first
        return await asyncio.gather(*lots), handler.batches

    results, batches = asyncio.run(run())
    assert batches == [[0], [1, 2], [3, 4, 5]]
    assert (results[0], results[1][0], results[2]) == ([2, 4], 6, [10])
    assert isinstance(results[1][1], ItemError)


async def test_items_that_come_together_each_wait_for_their_own_before() -> None:
    waits = iter([0.0, None, 0.0])

    async def before() -> None:
        if next(waits) is None:
            raise ItemError

    handler = Handler()
    handler.gate.set()
    batcher: Batcher[int, int] = Batcher(handler, max_items=3, max_queue=10, before=before)
    results = await batcher.submit_all([1, 2, 3])
    assert (results[0], results[2]) == (2, 6)
    assert isinstance(results[1], ItemError)


@settings(deadline=None)
@given(
    arrivals=st.lists(st.integers(0, 120), min_size=1, max_size=40, unique=True),
    took=st.dictionaries(st.integers(0, 39), st.integers(0, 300)),
    usual=st.integers(0, 30),
    in_flight=st.integers(1, 4),
    young=st.integers(0, 8),
    max_items=st.integers(1, 5),
)
def test_whatever_batches_take_items_keep_their_order_and_none_waits_longer_than_it_must(
    arrivals: list[int], took: dict[int, int], usual: int, in_flight: int, young: int, max_items: int
) -> None:
    """Times are in milliseconds."""
    handler = Timed({number: ms / 1000 for number, ms in took.items()}, usual / 1000)
    batcher: Batcher[int, int] = Batcher(
        handler, max_items=max_items, max_queue=100, in_flight=in_flight, young_s=young / 1000
    )
    came = sorted(arrivals)
    assert run_timed(batcher, [ms / 1000 for ms in came]) == [2 * n for n in range(len(came))]
    assert [item for _, items in handler.began for item in items] == list(range(len(came)))
    assert handler.most <= in_flight
    ends: list[float] = []
    for at, items in handler.began:
        busy = sum(end > at + 1e-9 for end in ends)
        assert busy < in_flight
        waited = at - came[items[0]] / 1000
        # Either it went within the time for company, or right when a place came free.
        assert waited <= young / 1000 + 1e-6 or any(abs(end - at) < 1e-6 for end in ends)
        ends.append(at + handler.took_s.get(items[0], handler.usual_s))


ACTIONS = st.lists(
    st.one_of(st.just("submit"), st.just("turn"), st.just("open"), st.just("shut"), st.integers(0, 30)),
    max_size=60,
)


@settings(deadline=None)
@given(
    actions=ACTIONS,
    max_items=st.integers(1, 4),
    max_queue=st.integers(1, 6),
    in_flight=st.integers(1, 3),
    bad=st.frozensets(st.integers(0, 30), max_size=5),
    failing=st.frozensets(st.integers(0, 10), max_size=3),
)
def test_nothing_is_lost_repeated_reordered_or_answered_with_anothers_result(
    actions: list[Any],
    max_items: int,
    max_queue: int,
    in_flight: int,
    bad: frozenset[int],
    failing: frozenset[int],
) -> None:
    """`submit` adds the next item, a number cancels that item's caller, the rest moves time and handler."""

    async def run() -> None:
        handler = Handler(bad=bad, failing=failing)
        batcher = Batcher(handler, max_items=max_items, max_queue=max_queue, in_flight=in_flight)
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


async def test_no_more_items_are_in_hand_than_may_be_and_the_rest_waits_its_turn() -> None:
    gate = asyncio.Event()
    sizes: list[int] = []
    most = 0

    async def handle(items: Sequence[int]) -> list[int]:
        nonlocal most
        sizes.append(len(items))
        most = max(most, batcher.in_hand)
        await gate.wait()
        return list(items)

    batcher: Batcher[int, int] = Batcher(handle, max_items=4, max_queue=100, in_flight=8, max_in_hand=6)
    waiting = [asyncio.create_task(batcher.submit(number)) for number in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert (sizes, batcher.in_hand, len(batcher)) == ([4, 2], 6, 14)
    gate.set()
    assert await asyncio.gather(*waiting) == list(range(20))
    assert (most, batcher.in_hand, len(batcher)) == (6, 0, 0)
