"""Orchestration: the checkout service is the conductor.

It knows the three services by name, where each listens, what each must be told, and which of them this order
concerns. It calls them concurrently and makes their replies its own.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from checkout import commands
from checkout.clients import ServiceClient
from checkout.journal import Journal
from checkout.orders import Order, Outcome, Progress, Step, StepStatus, first_progress
from checkout.passes import Passes
from checkout.replies import Reply
from checkout.store import Accepted, Placement


@dataclass(frozen=True)
class Call:
    """Where a service is told its part, how to put it, and what of its reply is used."""

    path: str
    command: Callable[[Order], Mapping[str, Any]]
    reply: type[Reply]


CALLS = {
    "email": Call("/emails", commands.send_confirmation, commands.ConfirmationReply),
    "warehouse": Call("/shipments", commands.prepare_shipment, commands.ShipmentReply),
    "rewards": Call("/balances", commands.credit_points, commands.BalanceReply),
}


def first_steps(order: Order) -> list[Step]:
    """Every service has a part; rewards only if the customer has joined the programme."""
    steps = {name: Step(name) for name in CALLS}
    if not order.customer["rewards_member"]:
        reason = "the customer has not joined rewards"
        steps["rewards"] = Step("rewards", StepStatus.SKIPPED, reason=reason, finished_at=order.accepted_at)
    return list(steps.values())


@dataclass(frozen=True)
class Orchestration:
    """The style's collaborators: the journal, the running passes, and a client for each service."""

    journal: Journal
    passes: Passes
    clients: Mapping[str, ServiceClient]
    lease_s: float

    async def place_order(self, order: Order, key: str | None, fingerprint: str | None) -> Accepted:
        """Accept one order and start its performance; whoever wants the outcome watches the order."""
        # Accept: nobody hears of the order before it is on disk.
        progress = first_progress(order, first_steps(order))
        with self.passes.admission(order.style) as admission:
            accepted = await self.journal.accept(Placement(order, progress, self.lease_s, key, fingerprint))

            # Perform: the conductor calls. What does not get through now is taken up by a later pass.
            if accepted.progress is not None:
                admission.start(order, progress, self.perform)

        # Answer: the order is safe, whatever happens from here on.
        return accepted

    async def perform(self, order: Order, progress: Progress) -> Progress:
        """One pass: call every service whose step is pending, all at once; none waits for another."""
        pending = [step for step in progress.steps.values() if step.status is StepStatus.PENDING]
        async with asyncio.TaskGroup() as calls:
            told = [calls.create_task(self._call(order, progress, step)) for step in pending]
        return max((each.result() for each in told), key=lambda reached: reached.version, default=progress)

    async def _call(self, order: Order, progress: Progress, step: Step) -> Progress:
        """Call one service until it answers or the pass's bounds are reached; how far the order is then."""

        async def not_through_yet(slug: str) -> None:
            if step.last_error is None:
                now = datetime.now(UTC)
                trouble = Outcome(order.order_id, step.name, StepStatus.PENDING, now, last_error=slug)
                await self.journal.record(progress, [trouble])

        call = CALLS[step.name]
        told = await self.clients[step.name].tell(call.path, call.command(order), call.reply, not_through_yet)
        return await self.journal.record(progress, [told.outcome(order.order_id, step.name)])
