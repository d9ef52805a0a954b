"""Dead letters from end to end: a poison order, and one that a later joiner refuses, until each is mended.

What mends them is the operator's command alone: the cause is removed first, and nothing else changes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import Connection

from servicekit import outcomes
from servicekit.db import Database
from servicekit.participant import Participant, Refusal, Skipped, Succeeded
from tests.servicekit.kettle import bus_to, settings_for
from tests.storage import notes
from tests.support.broker import running_broker
from tests.support.events import CREATED, ORDERS
from tests.support.faults import HEAR_SOON, place, until
from tests.support.system import ORDER, RESUME_SOON, LiveSystem, eventually, live_system

POISON = {**ORDER, "lines": [{"sku": "REFUSE-ME", "quantity": 3, "unit_price_minor": 100}]}
QUICK = RESUME_SOON | HEAR_SOON
JOINER = "gift-wrap"


def dead_letters(system: LiveSystem, *options: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(system.duet("dlq", "list", "--json", *options))["dead_letters"]
    return listed


def test_a_poison_order_is_mended_by_a_replay_once_its_cause_is_removed(tmp_path: Path) -> None:
    with live_system(tmp_path, QUICK) as system:
        with system.client("checkout") as checkout:
            order_id = place(checkout, style="choreography", body=POISON, wait_s=0).json()["order_id"]
            refused = until(checkout, order_id, "needs_attention")["steps"]["warehouse"]
        assert (refused["status"], refused["attempts"], refused["reason"]) == ("failed", 5, "sku-refused")
        [letter] = dead_letters(system)
        assert (letter["participant"], letter["key"], letter["errors"]) == ("warehouse", order_id, 5)
        [shown] = json.loads(system.duet("dlq", "show", order_id, "--json"))
        assert json.loads(shown["event"])["data"]["lines"] == POISON["lines"]
        system.end()
        lenient = LiveSystem(system.data, system.port_base, QUICK | {"WAREHOUSE_DEV_SKUS": "false"})
        try:
            lenient.start()
            _replayed(lenient, order_id)
        finally:
            lenient.clear_away()


def _replayed(system: LiveSystem, order_id: str) -> None:
    assert dead_letters(system)  # nothing of it heals by itself
    assert system.duet("dlq", "replay", order_id) == f"{order_id}: replayed\n"
    with system.client("checkout") as checkout, system.client("warehouse") as warehouse:
        done = until(checkout, order_id)["steps"]
        assert {step["status"] for step in done.values()} == {"succeeded"}
        acted_on = [effect["order_id"] for effect in warehouse.get("/effects").json()["effects"]]
        assert acted_on == [order_id]
        assert warehouse.get("/stock/REFUSE-ME").json()["allocated"] == 3
    assert dead_letters(system, "--all") == []
    assert system.audit()["refused"] == 0


class Gift(BaseModel):
    """What the later joiner reads of an event."""

    order_id: str


class GiftWrap:
    """A participant without REST, of whom checkout has never heard; without paper it refuses."""

    def __init__(self) -> None:
        self.has_paper = False
        self.database: Database | None = None

    async def wrapped(self) -> set[str]:
        assert self.database is not None
        return await self.database.read(notes.names)

    def handle(self, connection: Connection, gifts: Sequence[Gift]) -> list[Succeeded | Skipped | Refusal]:
        if not self.has_paper:
            return [Refusal("no paper") for _ in gifts]
        notes.add(connection, [(gift.order_id, 1) for gift in gifts])
        return [Succeeded({"paper": "blue"}) for _ in gifts]

    @asynccontextmanager
    async def dancing(self, url: str, file: Path) -> AsyncIterator[None]:
        """It takes part as long as the block lasts."""
        async with bus_to(url, nats_user=JOINER) as bus, Database(f"sqlite:///{file}", timeout_s=5) as opened:
            self.database = opened
            await opened.write(notes.create)
            await opened.write(outcomes.metadata.create_all)
            participant = Participant(
                bus,
                opened,
                settings_for(url, nats_user=JOINER),
                stream=ORDERS,
                subject=CREATED,
                model=Gift,
                handle=self.handle,
                registry=CollectorRegistry(),
            )
            task = asyncio.create_task(participant.run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])


@pytest.mark.timeout(120)
async def test_what_a_later_joiner_refused_is_mended_by_a_replay_and_the_order_stays_completed(
    tmp_path: Path,
) -> None:
    joiner = GiftWrap()
    with (
        running_broker(tmp_path) as broker,
        live_system(tmp_path, QUICK | {"DUET_NATS_URL": broker.url}) as system,
        system.client("checkout") as checkout,
    ):
        order_id = place(checkout, style="choreography", wait_s=0).json()["order_id"]
        before = until(checkout, order_id)

        def is_step(status: str) -> dict[str, Any] | None:
            order: dict[str, Any] = checkout.get(f"/checkouts/{order_id}").json()
            return order if order["steps"].get(JOINER, {}).get("status") == status else None

        async with joiner.dancing(broker.url, tmp_path / "gifts.db"):
            await asyncio.to_thread(eventually, partial(is_step, "failed"), 30, "it has refused")
            [letter] = await asyncio.to_thread(dead_letters, system)
            assert (letter["participant"], letter["key"], letter["reason"]) == (JOINER, order_id, "no paper")
            joiner.has_paper = True
            told = await asyncio.to_thread(system.duet, "dlq", "replay", order_id)
            assert told == f"{order_id}: replayed\n"
            order = await asyncio.to_thread(eventually, partial(is_step, "succeeded"), 30, "it has wrapped")
            assert await joiner.wrapped() == {order_id}
        assert await asyncio.to_thread(dead_letters, system, "--all") == []
        step = order["steps"].pop(JOINER)
        assert (step["attempts"], step["awaited"]) == (6, False)
        assert order == before
        await asyncio.to_thread(system.audit)
