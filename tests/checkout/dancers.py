"""Three fake participants: each takes part by a durable of its own, and reports an outcome for what it hears.

A fake does what a real one promises (one effect for each order id, the same outcome on a repeat), unless the
test says otherwise. It makes sure of its durable all the time, as a real one does.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from servicekit.bus import BusUnavailableError
from tests.support.fake_bus import FakeBus, FakeMessage

ORDERS, CREATED = "ORDERS", "orders.created"
TAKES_PART = {"duet.outcome": "true"}
WAIT_S = 0.02


@dataclass
class Dancer:
    """One participant: its effects by order id, every event it heard, and how it reports."""

    name: str
    result: Mapping[str, Any]
    bus: FakeBus
    effects: dict[str, int] = field(default_factory=dict)
    heard: list[dict[str, Any]] = field(default_factory=list)
    refuses: str | None = None
    skips: str | None = None
    reports: int = 1
    takes_part: bool = True
    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Come, or come back."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Go away; what is not acknowledged is delivered again later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            if ORDERS in self.bus.broker.streams:
                durables = self.bus.broker.streams[ORDERS].durables
                if self.name in durables:
                    durables[self.name].out.clear()

    async def report(
        self, order_id: str, status: str = "succeeded", retry: int | None = None, **told: Any
    ) -> None:
        """Publish an outcome; without a `retry`, as one who echoes none."""
        data = {"status": status, "result": None, "reason": None, "attempts": 1, **told}
        extensions = {} if retry is None else {"retry": retry}
        await self.bus.publish(f"outcomes.{self.name}", outcome(self.name, order_id, data, **extensions))

    async def _run(self) -> None:
        pull = self.bus.pull(ORDERS, self.name)
        while True:
            try:
                if self.takes_part:
                    await self.bus.ensure_durable(
                        ORDERS, self.name, CREATED, ack_wait_s=10, metadata=TAKES_PART
                    )
                for message in await pull.fetch(100, WAIT_S):
                    try:
                        await self._hear(message)
                    except BusUnavailableError:  # its outcome could not be told
                        await message.retry(WAIT_S)
            except BusUnavailableError:
                await asyncio.sleep(WAIT_S)

    async def _hear(self, message: FakeMessage) -> None:
        event = orjson.loads(message.data)
        order_id = event["subject"]
        self.heard.append(event)
        refused = self.refuses is not None
        skipped = self.skips is not None and not refused
        if not refused and not skipped:
            self.effects[order_id] = 1
        status = "failed" if refused else "skipped" if skipped else "succeeded"
        result = None if refused or skipped else self.result
        for _ in range(self.reports):
            await self.report(
                order_id, status, event["retry"], result=result, reason=self.refuses or self.skips
            )
        await message.ack()


def outcome(name: str, order_id: str, data: Mapping[str, Any], **extensions: int) -> bytes:
    """An outcome as a participant publishes it."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"{name}:{order_id}:{data['status']}",
            "source": f"/{name}",
            "type": "duet.OutcomeReported",
            "subject": order_id,
            "time": datetime.now(UTC).isoformat(),
            "datacontenttype": "application/json",
            **extensions,
            "data": data,
        }
    )
