"""Choreography: the checkout service is the first dancer.

It names nobody. It tells what has happened, once, to whoever listens; each listener knows its own part, and
which orders concern it. Whoever takes part reports an outcome, which the timeline writes down.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from checkout.broker import Broker
from checkout.events import order_created
from checkout.journal import Journal
from checkout.orders import Order, Outcome, Progress, Step, StepStatus, first_progress
from checkout.participants import Participants
from checkout.passes import Passes
from checkout.store import Accepted, Placement
from servicekit.bus import BusUnavailableError
from servicekit.crashpoints import reach

NO_OUTCOME = "no-outcome"
NOT_EMITTED = "broker-unavailable"


def first_steps(participants: Sequence[str]) -> list[Step]:
    """Whoever takes part now has a part; nobody here knows which, or whether this order concerns it."""
    return [Step(name) for name in participants]


@dataclass(frozen=True)
class Choreography:
    """The style's collaborators: the journal, the running passes, the broker, and who is known to take part.

    Without a `timeline` the event is all: the order is completed once the broker has it.
    """

    journal: Journal
    passes: Passes
    broker: Broker
    participants: Participants
    lease_s: float
    timeline: bool = True

    async def place_order(self, order: Order, key: str | None, fingerprint: str | None) -> Accepted:
        """Accept one order and start its performance; whoever wants the outcome watches the order."""
        # Accept: nobody hears of the order before it is on disk.
        progress = first_progress(order, first_steps(self.participants.known() if self.timeline else ()))
        with self.passes.admission(order.style) as admission:
            accepted = await self.journal.accept(Placement(order, progress, self.lease_s, key, fingerprint))

            # Perform: the event is emitted. What brings no outcome is taken up by a later pass.
            if accepted.progress is not None:
                admission.start(order, progress, self.perform)

        # Answer: the order is safe, whatever happens from here on.
        return accepted

    async def perform(self, order: Order, progress: Progress) -> Progress:
        """One pass: emit the event, unless it still waits in the stream for all who owe an outcome."""
        emitted = emission = progress.emission
        if self.timeline:
            progress = await self.participants.awaited_by(progress)
        owing = [step for step in progress.steps.values() if step.awaited and not step.is_final]
        if progress.is_final:
            return progress
        if emission is None or not self.broker.still_holds(emission, [step.name for step in owing]):
            try:
                emission = await self.broker.emit(order_created(order, progress.retries))
            except BusUnavailableError:
                noted = await self._note(progress, owing, NOT_EMITTED, datetime.now(UTC))
                return replace(noted, emission=None)
            reach("checkout.after-emit")
        if not self.timeline:
            return await self.journal.close(progress)
        if emitted is not None:
            progress = await self._note(progress, owing, NO_OUTCOME, emitted.at)
        return replace(progress, emission=emission)

    async def _note(self, progress: Progress, owing: Sequence[Step], slug: str, at: datetime) -> Progress:
        news = [
            Outcome(progress.order_id, step.name, StepStatus.PENDING, at, last_error=slug)
            for step in owing
            if step.last_error != slug
        ]
        return await self.journal.record(progress, news) if news else progress
