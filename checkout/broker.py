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
from servicekit.batching import Batcher, BatcherClosedError, Observe, QueueFullError, ignore
from servicekit.bus import Bus, BusUnavailableError, Durable, Published, Stream, StreamState
from servicekit.db import StorageUnavailableError

log = logging.getLogger("checkout.broker")

CREATED = "orders.created"
DAY_S = 86_400
MIB = 1024 * 1024
# Of events that are emitted in one go, and of those that wait for that.
MAX_TOGETHER, MAX_TOGETHER_BYTES = 256, MIB
MAX_BATCHES = 8  # at once: the broker keeps no more than 50 open batches of a stream
MAX_QUEUE = 4_000
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
# While somebody expected has yet to join, somebody waits for the system to be ready; but not for ever.
FIRST_LOOKS_FOR_S = 60.0
LEAST_PAUSE_S = 0.2
# At the start, and after a connection was lost, the first look is too early.
FAILURES_BEFORE_WARNING = 2
# While emitting fails, a waiting order is tried every two seconds: after so long without a try none needs it.
UNTRIED_S = 10.0
# While outcomes wait to be read, an event's may be among them.
UNHEARD_S = 300.0


@dataclass(frozen=True)
class View:
    """What the last look showed; `unheard`: there are outcomes that nobody has read yet.

    Another stamp of a stream means that it was made anew, and lost what it held.
    """

    at: datetime
    orders: StreamState
    outcomes: StreamState
    durables: Mapping[str, Durable]
    unheard: bool

    @property
    def stamp(self) -> str:
        """The stamps of both streams. In a new one of outcomes, those that nobody had read are lost too."""
        return f"{self.orders.created}/{self.outcomes.created}"


class Broker:
    """The broker as checkout sees it.

    `observe` is told of the durables on the stream of orders at each look, and says whether one of them is
    somebody who takes part only now. `on_return` is called, with the stamp that emissions have now, when the
    broker is back, or is another one: whatever was emitted under another stamp may be lost.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        observe: Callable[[Sequence[Durable]], Awaitable[bool]],
        observe_batch: Observe = ignore,
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._observe = observe
        self.on_return: Callable[[str], None] = lambda stamp: None
        self._view: View | None = None
        self._looked = asyncio.Event()
        self._look_now = asyncio.Event()
        self._returned = False
        self._expected = settings.participants_expected()
        self._expected_until = time.monotonic() + FIRST_LOOKS_FOR_S
        self._failing_since: float | None = None
        self._failed_at = 0.0
        self._emitting = 0
        together = settings.batching == "on"
        self._events: Batcher[bytes, Published] = Batcher(
            self._publish,
            max_items=MAX_TOGETHER if together else 1,
            max_queue=MAX_QUEUE,
            max_weight=MAX_TOGETHER_BYTES,
            weigh=len,
            in_flight=MAX_BATCHES if together else MAX_QUEUE,
            young_s=settings.batch_young_s,
            observe=observe_batch,
        )
        bus.on_connected.append(self._connected)

    @property
    def failing(self) -> bool:
        """Whether the last event could not be emitted, a short while ago, and none could since."""
        return self._failing_since is not None

    def failing_s(self) -> float:
        """For how many seconds emitting has failed; 0 while it works, or nothing was tried."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    async def emit(self, payload: bytes) -> Emission:
        """Have one event stored. Raises BusUnavailableError: it may be stored all the same.

        While emitting fails, one event at a time tries; the others are refused at once.
        """
        if self.failing and self._emitting:
            raise BusUnavailableError("the broker stores no events at present")
        view = self._view
        self._emitting += 1
        try:
            if view is None:
                raise BusUnavailableError("the broker has not been reached yet")
            published = await self._events.submit(payload)
        except (QueueFullError, BatcherClosedError) as exc:
            raise BusUnavailableError("too many events wait to be emitted") from exc
        except BusUnavailableError:
            self._failed_at = time.monotonic()
            self._failing_since = self._failing_since or self._failed_at
            self._look_now.set()
            raise
        finally:
            self._emitting -= 1
        if self.failing:
            self._failing_since = None
            self.on_return(view.stamp)
        # The stamp from before: if the stream was made anew meanwhile, the event is emitted once too often.
        return Emission(view.stamp, published.sequence, datetime.now(UTC))

    async def _publish(self, payloads: Sequence[bytes]) -> Sequence[Published]:
        return await self._bus.publish_all(CREATED, payloads, self._settings.publish_timeout_s)

    def still_holds(self, emission: Emission, names: Iterable[str]) -> bool:
        """Whether nothing is gained by emitting again: all of these will hear the event, or were just heard.

        After `emit_again_after_s` it counts as lost, whatever the broker says. Until the first look, which
        makes due what is lost, nothing does.
        """
        view = self._view
        if view is None:
            return True
        age = datetime.now(UTC) - emission.at
        newer = emission.at > view.at  # than the look: it cannot be in there yet
        kept = view.orders.first_sequence <= emission.sequence <= view.orders.last_sequence or newer
        same_orders = emission.stamp.startswith(f"{view.orders.created}/")
        if not (same_orders and kept and age < timedelta(seconds=self._settings.emit_again_after_s)):
            return False
        # The outcomes told since then are still there, or have been read.
        same_outcomes = emission.stamp == view.stamp
        if same_outcomes and view.unheard and age < timedelta(seconds=UNHEARD_S):
            return True
        durables = [durable for name in names if (durable := view.durables.get(name))]
        return all(
            emission.sequence > (durable.ack_floor if same_outcomes else durable.delivered)
            for durable in durables
        )

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
        failures = 0
        while True:
            try:
                await self._look()
                failures = 0
            except (BusUnavailableError, StorageUnavailableError) as exc:
                failures += 1
                if failures == FAILURES_BEFORE_WARNING:
                    log.warning("the broker cannot be looked at", extra={"error": str(exc)})
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
            returned = self._lapses() or returned
            joined = await self._observe(tuple(view.durables.values()))
        except BaseException:
            self._returned = returned or self._returned
            raise
        self._expected -= view.durables.keys()
        changed = self._view is None or self._view.stamp != view.stamp
        self._view = view
        self._looked.set()
        if changed or returned:
            log.info("the broker is there", extra={"stamp": view.stamp})
            self.on_return(view.stamp)
        if joined:  # there may be orders that nobody has taken part in yet
            self.on_return("")

    def _lapses(self) -> bool:
        """Whether emitting counts as failing no more, as the broker answers and nothing has been tried."""
        untried = not self._emitting and time.monotonic() - self._failed_at > UNTRIED_S
        if not (self.failing and untried):
            return False
        self._failing_since = None
        return True

    async def _seen(self) -> View:
        at = datetime.now(UTC)
        replicas = self._settings.nats_replicas
        orders, outcomes, _ = [
            await self._bus.ensure_stream(replace(each, replicas=replicas))
            for each in (ORDERS, OUTCOMES, DEAD_LETTERS)
        ]
        unheard = False
        if self._settings.timeline == "on":
            timeline = await self._bus.ensure_durable(
                OUTCOMES.name, TIMELINE, OUTCOMES.subjects[0], ack_wait_s=TIMELINE_ACK_WAIT_S
            )
            unheard = timeline.waiting > 0
        durables = await self._bus.durables(ORDERS.name)
        return View(at, orders, outcomes, {durable.name: durable for durable in durables}, unheard)

    async def _pause(self) -> None:
        poll_s = self._settings.broker_poll_s
        await asyncio.sleep(min(LEAST_PAUSE_S, poll_s))
        awaited = self._expected and time.monotonic() < self._expected_until
        try:
            async with asyncio.timeout(0 if awaited else poll_s):
                await self._look_now.wait()
        except TimeoutError:
            pass
        self._look_now.clear()
