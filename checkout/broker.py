"""Checkout's side of the broker: its streams kept in being, its events emitted, and who listens.

It looks at the broker every few seconds and after each connection, so that one that was restarted or wiped
has its streams again. Refuses to guess: an event of which it is unknown whether it was stored is emitted
again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from checkout.orders import Emission
from checkout.settings import Settings
from servicekit.bus import Bus, BusUnavailableError, Durable, Stream, StreamState

log = logging.getLogger("checkout.broker")

CREATED = "orders.created"
DAY_S = 86_400
MIB = 1024 * 1024
ORDERS = Stream("ORDERS", (CREATED,), max_age_s=7 * DAY_S)
# In memory: a lost outcome only means that the event is emitted again.
OUTCOMES = Stream("OUTCOMES", ("outcomes.*",), storage="memory", max_age_s=3_600, max_bytes=64 * MIB)
DEAD_LETTERS = Stream(
    "DEAD_LETTERS",
    ("dead_letters.*.*",),
    max_age_s=90 * DAY_S,
    max_bytes=256 * MIB,
    max_per_subject=1,
)
TIMELINE = "timeline"
TIMELINE_ACK_WAIT_S = 10.0
# Until everybody expected has joined once, somebody waits for the system to be ready.
FIRST_LOOKS_EVERY_S = 0.2


@dataclass(frozen=True)
class View:
    """What the last look showed. Another `stamp` means that a stream was made anew, and lost what it held."""

    at: datetime
    stamp: str
    orders: StreamState
    ack_floors: Mapping[str, int]


class Broker:
    """The broker as checkout sees it.

    `observe` is told of the durables on the stream of orders at each look; `on_return` is called when the
    broker is back, or is another one: whatever was emitted before may be lost.
    """

    def __init__(
        self, bus: Bus, settings: Settings, observe: Callable[[Sequence[Durable]], Awaitable[None]]
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._observe = observe
        self.on_return: Callable[[], None] = lambda: None
        self._view: View | None = None
        self._looked = asyncio.Event()
        self._look_now = asyncio.Event()
        self._returned = False
        self._expected = settings.participants_expected()
        self._failing_since: float | None = None
        self._emitting = 0
        bus.on_connected.append(self._connected)

    @property
    def failing(self) -> bool:
        """Whether the last event could not be emitted, and none could since."""
        return self._failing_since is not None

    def failing_s(self) -> float:
        """For how many seconds emitting has failed; 0 while it works, or nothing was tried."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def emit(self, payload: bytes) -> Emission:
        """Have one event stored. Raises BusUnavailableError: it may be stored all the same.

        While emitting fails, one event at a time tries; the others are refused at once.
        """
        view = self._view
        if view is None:
            raise BusUnavailableError("the broker has not been reached yet")
        if self.failing and self._emitting:
            raise BusUnavailableError("the broker stores no events at present")
        self._emitting += 1
        try:
            published = await self._bus.publish(CREATED, payload, self._settings.publish_timeout_s)
        except BusUnavailableError:
            self._failing_since = self._failing_since or time.monotonic()
            self._look_now.set()
            raise
        finally:
            self._emitting -= 1
        if self.failing:
            self._failing_since = None
            self.on_return()
        # The stamp from before: if the stream was made anew meanwhile, the event is emitted once too often.
        return Emission(view.stamp, published.sequence, datetime.now(UTC))

    def still_holds(self, emission: Emission | None, names: Iterable[str]) -> bool:
        """Whether the event still waits in the stream for each of these, who all have yet to acknowledge it.

        After `emit_again_after_s` it counts as lost, whatever the broker says.
        """
        view = self._view
        if emission is None or view is None or emission.stamp != view.stamp:
            return False
        young = datetime.now(UTC) - emission.at < timedelta(seconds=self._settings.emit_again_after_s)
        newer = emission.at > view.at  # than the look: it cannot be in there yet
        kept = view.orders.first_sequence <= emission.sequence <= view.orders.last_sequence or newer
        floors = view.ack_floors
        return young and kept and all(emission.sequence > floors.get(name, 0) for name in names)

    async def looked(self, within_s: float) -> bool:
        """Wait for the first look at the broker; False if there was none in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._looked.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """For ever: keep the streams in being, and see who listens."""
        reachable = True
        while True:
            try:
                await self._look()
                reachable = True
            except BusUnavailableError as exc:
                if reachable:
                    log.warning("the broker cannot be asked", extra={"error": str(exc)})
                reachable = False
            except Exception:
                log.warning("looking at the broker broke off", exc_info=True)
            await self._pause()

    def _connected(self) -> None:
        self._returned = True
        self._look_now.set()

    async def _look(self) -> None:
        returned, self._returned = self._returned, False
        try:
            view = await self._seen()
        except BaseException:
            self._returned = returned or self._returned
            raise
        self._expected -= view.ack_floors.keys()
        changed = self._view is None or self._view.stamp != view.stamp
        self._view = view
        self._looked.set()
        if changed or returned:
            log.info("the broker is there", extra={"stamp": view.stamp})
            self.on_return()

    async def _seen(self) -> View:
        at = datetime.now(UTC)
        replicas = self._settings.nats_replicas
        orders, outcomes, _ = [
            await self._bus.ensure_stream(replace(each, replicas=replicas))
            for each in (ORDERS, OUTCOMES, DEAD_LETTERS)
        ]
        if self._settings.timeline == "on":
            await self._bus.ensure_durable(
                OUTCOMES.name, TIMELINE, OUTCOMES.subjects[0], ack_wait_s=TIMELINE_ACK_WAIT_S
            )
        durables = await self._bus.durables(ORDERS.name)
        await self._observe(durables)
        # A new stream of outcomes counts too: outcomes that nobody had read yet went with the old one.
        stamp = f"{orders.created}/{outcomes.created}"
        return View(at, stamp, orders, {durable.name: durable.ack_floor for durable in durables})

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(
                FIRST_LOOKS_EVERY_S if self._expected else self._settings.broker_poll_s
            ):
                await self._look_now.wait()
        except TimeoutError:
            pass
        self._look_now.clear()
