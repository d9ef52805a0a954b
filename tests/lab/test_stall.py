"""Coordinated omission: a server that stalls for two seconds, seen by an open loop and by a closed one.

Both place the same number of orders with servers that are the same. In the closed loop the client that waits
is the only one to notice; the open loop counts from when orders were to leave, and p99 shows the stall.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lab.bench import arrivals, lone
from lab.bench.arrivals import OpenPlan, run_open
from lab.bench.lone import LonePlan, run_lone
from lab.bench.orders import prepare_orders
from lab.bench.wire import Request
from lab.compare.histograms import record, summary
from tests.lab.fake_checkout import FakeServer, fake_checkout, reply

STALL_S, STALLS_AT = 2.0, 50  # with its fiftieth order, the server stops for so long
ORDERS, RATE, TAKES_S = 300, 60.0, 0.005


async def test_a_stall_of_two_seconds_is_in_the_p99_of_an_open_loop_and_not_in_that_of_a_closed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few that the stall would not show if latency counted from when an order is written.
    monkeypatch.setattr(arrivals, "CONNECTIONS", 2)
    monkeypatch.setattr(lone, "PAUSES_S", (0.002, 0.006))
    opened, closed = await asyncio.gather(open_loop(tmp_path), closed_loop())
    assert len(opened) == len(closed) == ORDERS
    seen, hidden = summary(record(opened)), summary(record(closed))
    assert min(seen["max"], hidden["max"]) > 1900  # it was there, in both
    assert seen["p99"] > 1500
    assert hidden["p99"] < 500


async def open_loop(folder: Path) -> list[float]:
    """The latencies, in ms, of orders that leave at a constant rate, whatever became of those before."""
    async with stalling() as fake:
        plan = OpenPlan(fake.port, "", RATE, 0.0, ORDERS / RATE, 1, {}, str(folder / "rows"))
        plan = replace(plan, arrivals="constant")
        await run_open(plan, prepare_orders(seed=1))
    return [row[2] for row in json.loads((folder / "rows").read_bytes())]


async def closed_loop() -> list[float]:
    """The latencies, in ms, of a client that sends its next order when the last is answered."""
    async with stalling() as fake:
        found = await run_lone(LonePlan(fake.port, "", 0, ORDERS, seed=1), prepare_orders(seed=1))
    return found.latency_ms


@asynccontextmanager
async def stalling() -> AsyncIterator[FakeServer]:
    """A server that answers nobody for two seconds, once."""

    def answer(_: Request, number: int) -> bytes:
        if number == STALLS_AT:
            fake.stalled_until = asyncio.get_running_loop().time() + STALL_S
        return reply(201, f"o-{number}")

    async with fake_checkout(answer, TAKES_S) as fake:
        yield fake
