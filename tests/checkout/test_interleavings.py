"""The promise under random interleavings: each accepted order ends with one effect for each owed step.

Requests are repeated, passes are cut down at any point, processes are replaced, replies are lost after the
effect, services fail and come back. The fake services count effects by order id and never deduplicate for us
more than the real ones do.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.checkout.world import (
    OPERATOR,
    ORDER,
    RESULTS,
    Answer,
    FakeService,
    World,
    answer,
    hang,
    lose_reply,
    open_world,
    refuse,
)

GUEST = {**ORDER, "customer": {**ORDER["customer"], "rewards_member": False}}
ANSWERS: dict[str, Answer] = {
    "lost": lose_reply,
    "503": answer(503),
    "astray": answer(404),
    "nonsense": answer(200, content=b"{", headers={"content-type": "application/json"}),
    "refused": refuse("not-now"),
    "hang": hang,
}

Move = tuple[str, Any]
TROUBLE = st.lists(
    st.tuples(st.sampled_from(list(RESULTS)), st.sampled_from(list(ANSWERS))), min_size=1, max_size=5
)
PLACE: st.SearchStrategy[Move] = st.tuples(
    st.just("place"), st.tuples(st.integers(0, 3), st.integers(1, 4), TROUBLE)
)
INTERRUPT: st.SearchStrategy[Move] = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 3)),
    st.tuples(st.just("crash"), st.none()),
    st.tuples(st.just("wait"), st.integers(1, 15)),
    st.tuples(st.just("retry"), st.none()),
)
# Orders meet trouble, and then something else happens while it lasts.
MOVES = st.lists(st.tuples(PLACE, st.lists(INTERRUPT, max_size=3)), min_size=1, max_size=6)


class System:
    """A replica that may be replaced, its services, and what clients were told."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self.fakes = {name: FakeService(name) for name in RESULTS}
        self.accepted: dict[str, set[str]] = {}
        self._replica = AsyncExitStack()
        self.world: World

    async def start(self) -> None:
        self._replica = await self._stack.enter_async_context(AsyncExitStack())
        # Patience is short, so that a service that hangs costs milliseconds.
        self.world = await self._replica.enter_async_context(
            open_world(self._url, services=self.fakes, call_timeout_s=0.02, resume_max_s=0.02)
        )

    async def crash(self) -> None:
        """The process is gone in the middle of whatever it did; the next one takes over its file."""
        await self._replica.aclose()
        await self.start()

    def cut(self, which: int) -> None:
        """One running pass ends as by a bug or a lost thread: nothing is tidied up after it."""
        passes = [task for task in asyncio.all_tasks() if task.get_name().startswith("pass-")]
        for task in sorted(passes, key=lambda each: each.get_name())[which : which + 1]:
            task.cancel()

    async def place(self, key: int, times: int) -> None:
        """The same request several times at once, as an impatient client sends it."""
        order = GUEST if key == 3 else ORDER
        headers = {"Idempotency-Key": f"key-{key}", "Prefer": "wait=0"}
        replies = await asyncio.gather(*(self.world.place(order, headers=headers) for _ in range(times)))
        for reply in replies:
            assert reply.status_code in (201, 202)
            self.accepted.setdefault(headers["Idempotency-Key"], set()).add(reply.json()["order_id"])

    async def retry(self) -> None:
        """The operator retries whatever needs attention."""
        page = await self._page()
        for each in page:
            if each["status"] == "needs_attention":
                await self.world.client.post(f"/checkouts/{each['order_id']}/retry", headers=OPERATOR)

    async def heal(self) -> None:
        """Everything works again; with the operator's help all orders are completed."""
        for fake in self.fakes.values():
            fake.script.clear()
            fake.always = None
        await self.crash()  # orders whose pass was cut have a lease to sit out, or a new process to meet
        async with asyncio.timeout(10):
            while any(each["status"] != "completed" for each in await self._page()):
                await self.retry()
                await asyncio.sleep(0.002)

    async def _page(self) -> Sequence[dict[str, Any]]:
        reply: httpx.Response = await self.world.client.get("/checkouts?limit=500", headers=OPERATOR)
        found: list[dict[str, Any]] = reply.json()["checkouts"]
        return found

    async def check(self) -> None:
        """Clients were told one id for each key, and each of these orders has one effect a step owed."""
        orders = {each["order_id"]: each for each in await self._page()}
        told = [order_id for ids in self.accepted.values() for order_id in ids]
        assert all(len(ids) == 1 for ids in self.accepted.values())
        assert sorted(told) == sorted(orders)
        for name, fake in self.fakes.items():
            owed = [each for each in told if orders[each]["steps"][name]["status"] != "skipped"]
            assert fake.effects == dict.fromkeys(owed, 1)
        for each in orders.values():
            member = each["customer"]["rewards_member"]
            assert each["steps"]["rewards"]["status"] == ("succeeded" if member else "skipped")


async def play(system: System, moves: Sequence[Move]) -> None:
    await system.start()
    for move, what in moves:
        match move:
            case "place":
                key, times, trouble = what
                for name, kind in trouble:
                    system.fakes[name].script.append(ANSWERS[kind])
                await system.place(key, times)
            case "cut":
                system.cut(what)
            case "crash":
                await system.crash()
            case "wait":
                await asyncio.sleep(what / 1_000)
            case "retry":
                await system.retry()
    await system.heal()
    await system.check()


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=MOVES)
async def test_every_accepted_order_ends_with_one_effect_for_each_owed_step(
    empty_journal: Path, rounds: list[tuple[Move, list[Move]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(empty_journal, Path(folder) / "checkout.db")
        async with AsyncExitStack() as stack:
            moves = [move for place, interrupts in rounds for move in (place, *interrupts)]
            await play(System(f"sqlite:///{path}", stack), moves)
