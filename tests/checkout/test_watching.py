"""Who waits for an order: woken in this process at once, and by other replicas through the database."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from checkout import watching
from checkout.orders import OrderStatus, Progress
from checkout.watching import Watchers
from servicekit.db import Database
from servicekit.migrate import migrate
from tests.checkout.world import PACKAGE, FakeService, answer, open_when, open_world


def progress(version: int, status: OrderStatus = OrderStatus.IN_PROGRESS, order_id: str = "o1") -> Progress:
    return Progress(order_id, status, {}, version)


async def test_a_watcher_keeps_the_newest_it_is_told_whatever_the_sequence() -> None:
    watchers = Watchers()
    with watchers.watching("o1") as watch:
        for version in (2, 3, 1):
            watchers.tell(progress(version))
        assert watch.progress is not None
        assert watch.progress.version == 3


async def test_only_those_who_watch_the_order_are_told() -> None:
    watchers = Watchers()
    with watchers.watching("o1") as one, watchers.watching("o1") as too, watchers.watching("o2") as other:
        watchers.tell(progress(1))
        assert (one.progress, too.progress, other.progress) == (progress(1), progress(1), None)
        assert len(watchers) == 2
    assert len(watchers) == 0


async def test_waiting_ends_with_the_final_progress_or_the_time() -> None:
    watchers = Watchers()
    with watchers.watching("o1") as watch:
        watch.tell(progress(1))
        assert (await watch.final(0.01)).version == 1
        waiting = asyncio.create_task(watch.final(10))
        await asyncio.sleep(0)
        watchers.tell(progress(2))
        await asyncio.sleep(0)
        assert not waiting.done()
        watchers.tell(progress(3, OrderStatus.COMPLETED))
        assert (await waiting).version == 3


async def test_after_closing_nobody_waits() -> None:
    watchers = Watchers()
    with watchers.watching("o1") as watch:
        watch.tell(progress(1))
        waiting = asyncio.create_task(watch.final(10))
        await asyncio.sleep(0)
        watchers.close()
        assert (await waiting).version == 1
    with watchers.watching("o2") as late:
        late.tell(progress(1, order_id="o2"))
        assert not (await late.final(10)).is_final


async def test_one_question_is_asked_for_all_and_a_failure_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.001)
    watchers = Watchers()
    asked: list[dict[str, int]] = []

    async def refresh(seen: Mapping[str, int]) -> None:
        asked.append(dict(seen))
        if len(asked) == 1:
            raise OSError("the database is away")
        watchers.tell(progress(2, OrderStatus.COMPLETED))

    polling = asyncio.create_task(watchers.poll(refresh))
    with watchers.watching("o1") as watch, watchers.watching("o2"):
        watch.tell(progress(1))
        assert (await watch.final(5)).is_final
    assert asked[:2] == [{"o1": 1, "o2": 0}] * 2
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)


async def test_only_so_many_orders_are_asked_about_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_POLLED", 2)
    watchers = Watchers()
    with watchers.watching("o1"), watchers.watching("o2"), watchers.watching("o3"):
        assert len(watchers.seen()) == 2


async def test_a_client_of_one_replica_is_woken_by_what_another_records(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    gate = asyncio.Event()
    fakes = {name: FakeService(name, always=open_when(gate)) for name in ("email", "warehouse", "rewards")}
    async with (
        open_world(postgres_url, services=fakes) as one,
        open_world(postgres_url, services=fakes) as other,
    ):
        polling = asyncio.create_task(other.watchers.poll(other.journal.refresh))
        location = (await one.place(headers={"Prefer": "respond-async"})).headers["location"]
        waiting = asyncio.create_task(other.client.get(location, headers={"Prefer": "wait=10"}))
        followed = asyncio.create_task(other.client.get(f"{location}/events"))
        await asyncio.sleep(0.05)
        gate.set()
        async with asyncio.timeout(8):
            assert (await waiting).json()["status"] == "completed"
            assert "event: final" in (await followed).text
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    assert [len(fake.calls) for fake in fakes.values()] == [1, 1, 1]


async def test_a_replay_at_another_replica_finds_the_first_ones_order(postgres_url: str) -> None:
    migrate(PACKAGE, postgres_url)
    fakes = {name: FakeService(name) for name in ("email", "warehouse", "rewards")}
    async with (
        open_world(postgres_url, services=fakes) as one,
        open_world(postgres_url, services=fakes) as other,
    ):
        headers = {"Idempotency-Key": "k"}
        first, again = await asyncio.gather(one.place(headers=headers), other.place(headers=headers))
        assert first.json()["order_id"] == again.json()["order_id"]
        assert sum("idempotency-replayed" in reply.headers for reply in (first, again)) == 1
    assert [len(fake.effects) for fake in fakes.values()] == [1, 1, 1]


async def test_an_order_of_a_dead_replica_is_finished_by_the_other_once_its_lease_is_over(
    postgres_url: str,
) -> None:
    migrate(PACKAGE, postgres_url)
    fakes = {name: FakeService(name) for name in ("email", "warehouse", "rewards")}
    fakes["email"].always = answer(503, headers={"retry-after": "5"})
    leases: dict[str, Any] = {"lease_s": 0.5, "pass_timeout_s": 0.4, "publish_timeout_s": 0.3}
    async with Database(postgres_url, timeout_s=5) as database:
        async with open_world(
            postgres_url, services=fakes, resuming=False, database=database, **leases
        ) as one:
            order_id = (await one.place(headers={"Prefer": "wait=0"})).json()["order_id"]
        fakes["email"].always = None
        async with open_world(postgres_url, services=fakes, database=database, **leases) as other:
            await other.until(order_id, "completed")
    assert [len(fake.effects) for fake in fakes.values()] == [1, 1, 1]
