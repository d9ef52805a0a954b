"""The order's rules, whatever comes in whatever sequence."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkout.orders import (
    ABANDONED,
    OrderStatus,
    Outcome,
    Progress,
    Step,
    StepStatus,
    WrongStatusError,
    abandoned,
    advance,
    retried,
    status_of,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = ("email", "warehouse", "rewards")
SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)

Event = Callable[[Progress, datetime], Progress]


def progress(*statuses: StepStatus) -> Progress:
    steps = {name: Step(name, status) for name, status in zip(NAMES, statuses, strict=False)}
    return Progress("o1", status_of(steps.values()), steps)


def told(step: str, status: StepStatus, attempts: int = 1, error: str | None = "timeout") -> Event:
    def apply(before: Progress, at: datetime) -> Progress:
        pending = status is StepStatus.PENDING
        result = {"id": 1} if status is StepStatus.SUCCEEDED else None
        reason = "no" if status in (StepStatus.FAILED, StepStatus.SKIPPED) else None
        last_error = error if pending else None
        return advance(before, Outcome("o1", step, status, at, attempts, result, reason, last_error))

    return apply


OUTCOMES = st.builds(
    told,
    st.sampled_from(NAMES),
    st.sampled_from(list(StepStatus)),
    st.integers(0, 5),
    st.none() | st.sampled_from(["timeout", "status-503"]),
)
EVENTS = st.lists(OUTCOMES | st.sampled_from([retried, abandoned]), max_size=25)


def apply(event: Event, before: Progress, at: datetime) -> Progress:
    try:
        return event(before, at)
    except WrongStatusError:
        return before


@given(EVENTS)
def test_whatever_happens_the_rules_hold(events: list[Event]) -> None:
    now = progress(*[StepStatus.PENDING] * 3)
    for second, event in enumerate(events):
        before, now = now, apply(event, now, NOW + timedelta(seconds=second))
        assert (now.version == before.version) == (now == before)
        assert now.version - before.version in (0, 1)
        assert now.status is status_of(now.steps.values())
        assert (now.completed_at is not None) == (now.status is OrderStatus.COMPLETED)
        for name, old in before.steps.items():
            new = now.steps[name]
            assert new == old or old.status not in SETTLED
            assert new.attempts >= old.attempts
            assert (new.finished_at is None) == (new.status is StepStatus.PENDING)
            assert new.since is None or new.status is StepStatus.PENDING
            assert new.since is None or new.last_error is not None
            if (old.status, new.status) == (StepStatus.FAILED, StepStatus.PENDING):
                assert event is retried


@given(EVENTS)
def test_the_set_of_successes_decides_not_their_sequence(events: list[Event]) -> None:
    """Once every step has succeeded, the order is completed, whatever came before, between or after."""
    now = progress(*[StepStatus.PENDING] * 3)
    for event in [*events, *(told(name, StepStatus.SUCCEEDED) for name in NAMES), *events]:
        now = apply(event, now, NOW)
    assert now.status is OrderStatus.COMPLETED


@pytest.mark.parametrize("old", list(StepStatus))
@pytest.mark.parametrize("new", list(StepStatus))
def test_what_may_replace_what(old: StepStatus, new: StepStatus) -> None:
    before = progress(old)
    after = told("email", new)(before, NOW)
    replaced = after != before
    assert replaced == (old is StepStatus.PENDING or (old is StepStatus.FAILED and new in SETTLED))
    assert after.steps["email"].status is (new if replaced else old)


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ([], "in_progress"),
        (["pending"], "in_progress"),
        (["pending", "failed", "succeeded"], "in_progress"),
        (["failed", "succeeded"], "needs_attention"),
        (["failed", "skipped"], "needs_attention"),
        (["succeeded", "skipped"], "completed"),
        (["skipped"], "completed"),
    ],
)
def test_an_orders_status_follows_from_its_steps(statuses: list[str], status: str) -> None:
    assert status_of(Step("x", StepStatus(each)) for each in statuses) == status


def test_a_step_that_was_not_known_before_is_added() -> None:
    after = told("gift-wrap", StepStatus.SUCCEEDED)(progress(StepStatus.SUCCEEDED), NOW)
    assert set(after.steps) == {"email", "gift-wrap"}


def test_attempts_add_up_and_since_is_the_first_trouble() -> None:
    now = progress(StepStatus.PENDING)
    for second in (1, 2, 3):
        now = told("email", StepStatus.PENDING, 2)(now, NOW + timedelta(seconds=second))
    step = now.steps["email"]
    assert (step.attempts, step.since, step.last_error) == (6, NOW + timedelta(seconds=1), "timeout")
    done = told("email", StepStatus.SUCCEEDED)(now, NOW).steps["email"]
    assert (done.attempts, done.since, done.last_error) == (7, None, None)


def test_a_retry_touches_the_failed_steps_alone() -> None:
    before = progress(StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED)
    after = retried(before, NOW)
    assert [step.status for step in after.steps.values()] == ["succeeded", "pending", "skipped"]
    assert (after.status, after.version) == (OrderStatus.IN_PROGRESS, 2)


def test_only_what_needs_attention_can_be_retried_and_only_the_unfinished_abandoned() -> None:
    with pytest.raises(WrongStatusError):
        retried(progress(StepStatus.SUCCEEDED), NOW)
    with pytest.raises(WrongStatusError):
        retried(progress(StepStatus.FAILED, StepStatus.PENDING), NOW)
    with pytest.raises(WrongStatusError):
        abandoned(progress(StepStatus.SUCCEEDED, StepStatus.SKIPPED), NOW)


def test_what_was_abandoned_says_so_and_keeps_why_it_had_not_come_about() -> None:
    stuck = told("email", StepStatus.PENDING)(progress(StepStatus.PENDING, StepStatus.FAILED), NOW)
    steps = abandoned(stuck, NOW).steps
    assert {step.reason for step in steps.values()} == {ABANDONED}
    assert (steps["email"].last_error, steps["email"].since) == ("timeout", None)
