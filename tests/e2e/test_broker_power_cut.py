"""Simulated power cuts of the broker: an event that was published is there afterwards, in a batch or alone.

The real nats-server stores on a disk in a file, which is copied while it publishes and the server is held for
that moment; started on the copy, it must have every event that was acknowledged before, and of no batch a
part only. The same without `sync_interval: always` must lose events: a simulation that cannot see that would
prove nothing.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout.broker import CREATED, ORDERS
from servicekit.bus import Bus
from tests.servicekit.kettle import bus_to
from tests.support.broker import Broker
from tests.support.powercut.image import cut, make_image, mounted, why_no_image

CUTS = 6
BATCH = 48
BEFORE_A_CUT_S = 0.15
PATIENCE_S = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if why := why_no_image(tmp_path):
        pytest.skip(why)
    return tmp_path


async def test_no_event_that_was_published_is_lost_by_a_power_cut_and_no_batch_torn(folder: Path) -> None:
    acked, after = await _cut_while_publishing(folder, sync="always")
    assert all(len(each) >= BATCH for each in acked)
    for promised, found in zip(acked, after, strict=True):
        assert not promised - found, f"{len(promised - found)} of {len(promised)} lost"
        numbers = {number // BATCH for number in found}
        assert found == {n * BATCH + i for n in numbers for i in range(BATCH)}


async def test_the_simulation_sees_what_a_lazy_broker_loses(folder: Path) -> None:
    acked, after = await _cut_while_publishing(folder, sync="2m")
    assert any(promised - found for promised, found in zip(acked, after, strict=True))


async def _cut_while_publishing(folder: Path, sync: str) -> tuple[list[set[int]], list[set[int]]]:
    """For each cut, the numbers of the events that were acknowledged before it, and of those found after."""
    image = make_image(folder / "disk.img")
    acked: set[int] = set()
    promised: list[set[int]] = []
    copies: list[Path] = []
    with mounted(image, folder / "disk") as disk:
        broker = Broker(disk, sync_interval=sync)
        broker.start()
        try:
            async with bus_to(broker.url) as bus:
                await bus.ensure_stream(ORDERS)
                publishing = asyncio.create_task(_publish(bus, acked))
                for number in range(CUTS):
                    await asyncio.sleep(BEFORE_A_CUT_S)
                    broker.pause()
                    promised.append(set(acked))
                    copies.append(cut(image, folder / f"cut-{number}.img"))
                    broker.resume()
                publishing.cancel()
        finally:
            broker.close()
    return promised, [await _found(copy, folder / f"found-{n}") for n, copy in enumerate(copies)]


async def _publish(bus: Bus, acked: set[int]) -> None:
    number = 0
    while True:
        batch = range(number, number + BATCH)
        await bus.publish_all(CREATED, [b"%d" % each for each in batch], PATIENCE_S)
        acked.update(batch)
        number += BATCH


async def _found(copy: Path, at: Path) -> set[int]:
    """The numbers of the events that a broker finds on what a cut has left."""
    with mounted(copy, at) as disk:
        broker = Broker(disk)
        broker.start()
        try:
            async with bus_to(broker.url) as bus:
                await bus.ensure_stream(ORDERS)
                await bus.ensure_durable(ORDERS.name, "reader", CREATED, ack_wait_s=30)
                pull = bus.pull(ORDERS.name, "reader")
                found: set[int] = set()
                while messages := await pull.fetch(500, 0.5):
                    found |= {int(each.data) for each in messages}
                    for each in messages:
                        await each.ack()
                return found
        finally:
            broker.close()
