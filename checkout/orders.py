"""The order and its rules, pure: what a step may become, and what that makes of the order.

Nothing replaces `succeeded` or `skipped`; they replace anything. One exception: a participant that retired
may come back and succeed, and its skipped step with it, though nobody awaits it any more. `failed` replaces
`pending` only, and only an operator's retry turns it back; a failure of before that retry is no news. An
order is `in_progress` while a step that it awaits is pending, and while it awaits none. A step that is not
awaited (a later joiner's, say) is kept and shown; it changes no order's status.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

CHOREOGRAPHY = "choreography"
ABANDONED = "abandoned"
RETIRED = "participant retired"


class StepStatus(StrEnum):
    """What a step is at."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    SKIPPED = "skipped"
    FAILED = "failed"


class OrderStatus(StrEnum):
    """What an order is at."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    NEEDS_ATTENTION = "needs_attention"


class WrongStatusError(Exception):
    """The order's status does not allow what was asked."""


@dataclass(frozen=True)
class Order:
    """The facts of an accepted order; they never change. Amounts are in the currency's minor units."""

    order_id: str
    style: str
    caller: str
    customer: Mapping[str, Any]
    currency: str
    lines: Sequence[Mapping[str, Any]]
    ship_to: Mapping[str, Any]
    total_minor: int
    accepted_at: datetime


@dataclass(frozen=True)
class Step:
    """One participant's part of an order. `attempts` counts the tries that are known of.

    A step that is not `awaited` is of somebody who took part later than the order was accepted, or came back
    after having retired.
    """

    name: str
    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    result: Mapping[str, Any] | None = None
    reason: str | None = None
    last_error: str | None = None
    since: datetime | None = None
    finished_at: datetime | None = None
    awaited: bool = True

    @property
    def is_final(self) -> bool:
        """Whether it is not pending."""
        return self.status is not StepStatus.PENDING


@dataclass(frozen=True)
class Emission:
    """Where an order's event is: the stamp of its stream, its sequence there, and when it was emitted."""

    stamp: str
    sequence: int
    at: datetime


@dataclass(frozen=True)
class Outcome:
    """News of one step: what it has come to, and in how many further tries.

    `pending` with `last_error` says that it has not got through yet. `retry` is that of the event which it
    answers; None: not told, so the newest.
    """

    order_id: str
    step: str
    status: StepStatus
    at: datetime
    attempts: int = 0
    result: Mapping[str, Any] | None = None
    reason: str | None = None
    last_error: str | None = None
    retry: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far an order has come. `version` grows with each change that a client can see.

    `passes` counts those since the order was last made due before its time, `retries` how often an operator
    asked for a retry.
    """

    order_id: str
    status: OrderStatus
    steps: Mapping[str, Step]
    version: int = 1
    completed_at: datetime | None = None
    passes: int = field(default=0, compare=False)
    emission: Emission | None = field(default=None, compare=False)
    retries: int = field(default=0, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing is awaited any more."""
        return self.status is not OrderStatus.IN_PROGRESS

    @property
    def awaits_anybody(self) -> bool:
        """Whether there is a step that counts for the status."""
        return any(step.awaited for step in self.steps.values())


def first_progress(order: Order, steps: Iterable[Step]) -> Progress:
    """The progress of an order at the moment of its acceptance."""
    known = {step.name: step for step in steps}
    return Progress(order.order_id, status_of(known.values()), known)


def status_of(steps: Iterable[Step]) -> OrderStatus:
    """The order's status by the steps that it awaits; without any it is in progress."""
    statuses = {step.status for step in steps if step.awaited}
    if not statuses or StepStatus.PENDING in statuses:
        return OrderStatus.IN_PROGRESS
    return OrderStatus.NEEDS_ATTENTION if StepStatus.FAILED in statuses else OrderStatus.COMPLETED


def advance(progress: Progress, outcome: Outcome) -> Progress:
    """Apply one outcome; an outcome that may not replace what is there changes nothing.

    A step that nobody has heard of before is kept, but not awaited.
    """
    old = progress.steps.get(outcome.step, Step(outcome.step, awaited=False))
    # Nobody waited for it any more: that it comes late is no fault.
    came_back = outcome.status is StepStatus.SUCCEEDED and (old.status, old.reason) == (
        StepStatus.SKIPPED,
        RETIRED,
    )
    if old.status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED) and not came_back:
        return progress
    if old.status is StepStatus.FAILED and outcome.status in (StepStatus.FAILED, StepStatus.PENDING):
        return progress
    asked_since = outcome.retry is not None and outcome.retry < progress.retries
    if outcome.status is StepStatus.FAILED and asked_since:
        return progress
    pending = outcome.status is StepStatus.PENDING
    new = Step(
        name=outcome.step,
        status=outcome.status,
        attempts=old.attempts + outcome.attempts,
        result=outcome.result,
        reason=outcome.reason,
        last_error=(outcome.last_error or old.last_error) if pending else None,
        since=(old.since or outcome.at) if pending and outcome.last_error else None,
        finished_at=None if pending else outcome.at,
        awaited=old.awaited and not came_back,
    )
    if new == progress.steps.get(outcome.step):
        return progress
    return _with_steps(progress, {outcome.step: new}, outcome.at)


def awaiting(progress: Progress, names: Iterable[str], at: datetime) -> Progress:
    """An order that awaits nobody yet awaits these from now on; any other is left as it is."""
    if progress.is_final or progress.awaits_anybody:
        return progress
    awaited = {name: replace(progress.steps.get(name, Step(name)), awaited=True) for name in names}
    return _with_steps(progress, awaited, at) if awaited else progress


def closed(progress: Progress, at: datetime) -> Progress:
    """Nobody will tell any more: whoever is still pending is not awaited, and the order is at its end."""
    if progress.is_final:
        return progress
    pending = {
        name: replace(step, awaited=False) for name, step in progress.steps.items() if not step.is_final
    }
    return _with_steps(replace(progress, status=OrderStatus.COMPLETED), pending, at)


def released(progress: Progress, names: Iterable[str], at: datetime) -> Progress:
    """The pending steps of these names are skipped: those participants have retired."""
    skipped = {
        name: replace(
            step,
            status=StepStatus.SKIPPED,
            reason=RETIRED,
            last_error=None,
            since=None,
            finished_at=at,
        )
        for name in names
        if (step := progress.steps.get(name)) and step.status is StepStatus.PENDING
    }
    return _with_steps(progress, skipped, at) if skipped else progress


def retried(progress: Progress, at: datetime) -> Progress:
    """The failed steps, awaited or not, are pending again, and so is the order's event.

    A completed order stays completed: of it, the steps that came to nothing are a later joiner's, and those
    that are pending still are asked for again, too, for no pass is over them. Raises WrongStatusError if the
    order is in progress, or completed without such a step.
    """
    completed = progress.status is OrderStatus.COMPLETED
    again = {
        name: replace(step, status=StepStatus.PENDING, reason=None, last_error=None, finished_at=None)
        for name, step in progress.steps.items()
        if step.status is StepStatus.FAILED or (completed and not step.is_final)
    }
    if progress.status is OrderStatus.IN_PROGRESS:
        raise WrongStatusError("the order is in progress; it can be retried once it no longer is")
    if completed and not again:
        raise WrongStatusError("the order is completed, and no step of it failed; there is nothing to retry")
    status = OrderStatus.COMPLETED if completed else OrderStatus.IN_PROGRESS
    return _with_steps(
        replace(progress, status=status, emission=None, retries=progress.retries + 1), again, at
    )


def abandoned(progress: Progress, at: datetime) -> Progress:
    """Whatever has not come about is given up. Raises WrongStatusError if the order is completed."""
    if progress.status is OrderStatus.COMPLETED:
        raise WrongStatusError("the order is completed; there is nothing to abandon")
    given_up = {
        name: replace(
            step,
            status=StepStatus.FAILED,
            last_error=step.last_error or step.reason,
            reason=ABANDONED,
            since=None,
            finished_at=step.finished_at or at,
        )
        for name, step in progress.steps.items()
        if step.status in (StepStatus.PENDING, StepStatus.FAILED)
    }
    # Said outright: an order that awaits nobody has no step to say it.
    return _with_steps(replace(progress, status=OrderStatus.NEEDS_ATTENTION), given_up, at)


def _with_steps(progress: Progress, changed: Mapping[str, Step], at: datetime) -> Progress:
    steps = {**progress.steps, **changed}
    awaits_anybody = any(step.awaited for step in steps.values())
    status = status_of(steps.values()) if awaits_anybody else progress.status
    return Progress(
        order_id=progress.order_id,
        status=status,
        steps=steps,
        version=progress.version + 1,
        completed_at=(progress.completed_at or at) if status is OrderStatus.COMPLETED else None,
        passes=progress.passes,
        emission=progress.emission,
        retries=progress.retries,
    )
