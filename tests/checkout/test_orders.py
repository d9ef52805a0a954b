"""The order's rules, whatever comes in whatever sequence."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkout.orders import (
    ABANDONED,
    RETIRED,
    Emission,
    OrderStatus,
    Outcome,
    Progress,
    Step,
    StepStatus,
    WrongStatusError,
    abandoned,
    advance,
    awaiting,
    closed,
    released,
    retried,
    status_of,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = ("email", "warehouse", "rewards")
SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED)

LATECOMER = "gift-wrap"

Event = Callable[[Progress, datetime], Progress]


def progress(*statuses: StepStatus) -> Progress:
    steps = {name: Step(name, status) for name, status in zip(NAMES, statuses, strict=False)}
    return Progress("o1", status_of(steps.values()), steps)


def awaits(before: Progress, at: datetime) -> Progress:
    return awaiting(before, NAMES, at)


def releases(before: Progress, at: datetime) -> Progress:
    return released(before, NAMES[:1], at)


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
HEARD = st.builds(
    told,
    st.sampled_from([*NAMES, LATECOMER]),
    st.sampled_from(list(StepStatus)),
    st.integers(0, 5),
    st.just("no-outcome"),
)
CHOREOGRAPHED = st.lists(HEARD | st.sampled_from([retried, abandoned, awaits, closed, releases]), max_size=25)


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


@given(CHOREOGRAPHED)
def test_whatever_is_heard_only_awaited_steps_count(events: list[Event]) -> None:
    now = progress()
    for second, event in enumerate(events):
        before, now = now, apply(event, now, NOW + timedelta(seconds=second))
        assert (now.version == before.version) == (now == before)
        assert (now.completed_at is not None) == (now.status is OrderStatus.COMPLETED)
        if now.awaits_anybody:
            assert now.status is status_of(now.steps.values())
        else:
            assert now.status is before.status or event in (retried, abandoned, closed)
        for name, old in before.steps.items():
            new = now.steps[name]
            came_back = (old.reason, new.status) == (RETIRED, StepStatus.SUCCEEDED)
            assert new.awaited >= old.awaited or came_back or event is closed
            assert new == replace(old, awaited=new.awaited) or old.status not in SETTLED or came_back
        if event not in (closed, abandoned) and now.status is OrderStatus.COMPLETED:
            assert now.awaits_anybody or before.status is OrderStatus.COMPLETED


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


@pytest.mark.parametrize("status", list(StepStatus))
@pytest.mark.parametrize("of_others", list(StepStatus))
def test_a_step_of_a_later_joiner_is_added_and_changes_no_status(
    status: StepStatus, of_others: StepStatus
) -> None:
    before = replace(progress(of_others), completed_at=NOW if of_others in SETTLED else None)
    after = told(LATECOMER, status)(before, NOW + timedelta(hours=1))
    assert set(after.steps) == {"email", LATECOMER}
    assert not after.steps[LATECOMER].awaited
    assert after.steps[LATECOMER].status is status
    assert (after.status, after.completed_at) == (before.status, before.completed_at)
    assert after.version == before.version + 1


def test_the_same_news_twice_is_no_news() -> None:
    news = told("email", StepStatus.PENDING, 0, "no-outcome")
    once = news(progress(StepStatus.PENDING), NOW)
    assert news(once, NOW + timedelta(hours=1)) is once
    done = told("email", StepStatus.SUCCEEDED)(once, NOW)
    assert told("email", StepStatus.SUCCEEDED)(done, NOW + timedelta(hours=1)) is done


def test_an_order_that_awaits_nobody_is_never_completed_by_outcomes_alone() -> None:
    heard = progress()
    for name in NAMES:
        heard = told(name, StepStatus.SUCCEEDED)(heard, NOW)
    assert (heard.status, heard.completed_at) == (OrderStatus.IN_PROGRESS, None)
    later = NOW + timedelta(minutes=1)
    after = awaiting(heard, NAMES, later)
    assert (after.status, after.completed_at) == (OrderStatus.COMPLETED, later)
    assert all(step.awaited for step in after.steps.values())


def test_whom_an_order_awaits_is_settled_once() -> None:
    heard = told(LATECOMER, StepStatus.SUCCEEDED)(progress(), NOW)
    assert awaiting(heard, (), NOW) is heard
    first = awaiting(heard, ("email", "warehouse"), NOW)
    assert {name: step.awaited for name, step in first.steps.items()} == {
        LATECOMER: False,
        "email": True,
        "warehouse": True,
    }
    assert awaiting(first, NAMES, NOW) is first


def test_closing_awaits_nobody_any_more_and_forgets_no_failure() -> None:
    after = closed(progress(), NOW)
    assert (after.status, after.steps, after.completed_at) == (OrderStatus.COMPLETED, {}, NOW)
    assert closed(after, NOW + timedelta(hours=1)) is after
    heard = told("email", StepStatus.SUCCEEDED)(after, NOW + timedelta(hours=1))
    assert (heard.status, heard.completed_at) == (OrderStatus.COMPLETED, NOW)
    waiting = closed(progress(StepStatus.PENDING, StepStatus.SUCCEEDED), NOW)
    assert (waiting.status, [step.awaited for step in waiting.steps.values()]) == ("completed", [False, True])
    failed = closed(progress(StepStatus.PENDING, StepStatus.FAILED), NOW)
    assert (failed.status, failed.completed_at) == (OrderStatus.NEEDS_ATTENTION, None)


def test_what_a_retired_participant_owes_is_skipped_and_nothing_else() -> None:
    stuck = told("email", StepStatus.PENDING)(
        progress(StepStatus.PENDING, StepStatus.PENDING, StepStatus.FAILED), NOW
    )
    after = released(stuck, ["email", "rewards", "nobody"], NOW)
    assert [step.status for step in after.steps.values()] == ["skipped", "pending", "failed"]
    email = after.steps["email"]
    assert (email.reason, email.last_error, email.since, email.finished_at) == (RETIRED, None, None, NOW)
    assert released(after, ["email"], NOW) is after
    assert released(progress(StepStatus.PENDING), ["email"], NOW).status is OrderStatus.COMPLETED


@pytest.mark.parametrize("others", list(StepStatus))
def test_a_retired_participant_that_comes_back_succeeds_late_and_holds_nobody_up(others: StepStatus) -> None:
    gone = released(progress(StepStatus.PENDING, others), ["email"], NOW)
    later = NOW + timedelta(days=1)
    after = told("email", StepStatus.SUCCEEDED)(gone, later)
    email = after.steps["email"]
    assert (email.status, email.reason, email.finished_at) == ("succeeded", None, later)
    assert not email.awaited
    assert (after.status, after.completed_at) == (gone.status, gone.completed_at)
    assert after.version == gone.version + 1
    for status in StepStatus:
        assert told("email", status)(after, later) is after


@pytest.mark.parametrize("status", [status for status in StepStatus if status is not StepStatus.SUCCEEDED])
def test_only_success_replaces_what_was_skipped_for_a_retirement(status: StepStatus) -> None:
    gone = released(progress(StepStatus.PENDING), ["email"], NOW)
    assert told("email", status)(gone, NOW) is gone


@pytest.mark.parametrize(("retry", "counts"), [(0, False), (1, False), (2, True), (3, True), (None, True)])
def test_a_failure_of_before_a_retry_is_no_news(retry: int | None, counts: bool) -> None:
    asked = retried(replace(progress(StepStatus.FAILED), retries=1), NOW)
    for name in ("email", LATECOMER):
        failed = Outcome("o1", name, StepStatus.FAILED, NOW, 5, reason="no", retry=retry)
        assert (advance(asked, failed) is not asked) == counts
    for status in SETTLED:
        done = Outcome("o1", "email", status, NOW, retry=0)
        assert advance(asked, done).steps["email"].status is status


def test_a_retry_counts_and_forgets_where_the_event_is() -> None:
    emitted = replace(progress(StepStatus.FAILED), emission=Emission("s", 1, NOW), retries=2)
    after = retried(emitted, NOW)
    assert (after.retries, after.emission) == (3, None)
    late = told(LATECOMER, StepStatus.FAILED)(emitted, NOW)
    assert retried(late, NOW).steps[LATECOMER].status is StepStatus.PENDING


@pytest.mark.parametrize("close", [False, True])
def test_a_completed_order_stays_so_while_what_a_later_joiner_failed_is_retried(close: bool) -> None:
    done = closed(progress(), NOW) if close else replace(progress(StepStatus.SUCCEEDED), completed_at=NOW)
    late = told(LATECOMER, StepStatus.FAILED)(done, NOW)
    again = late
    for retries in (1, 2):  # the second, because the event of the first may have been lost
        again = retried(again, NOW + timedelta(hours=1))
        assert (again.status, again.completed_at) == (OrderStatus.COMPLETED, NOW)
        assert (again.steps[LATECOMER].status, again.retries) == (StepStatus.PENDING, retries)
        assert again.version == late.version + retries
        assert again.steps.get("email") == done.steps.get("email")
    with pytest.raises(WrongStatusError):
        retried(told(LATECOMER, StepStatus.SUCCEEDED)(again, NOW), NOW)


def test_an_order_that_awaits_nobody_can_be_given_up_and_taken_up_again() -> None:
    after = abandoned(progress(), NOW)
    assert (after.status, after.steps) == (OrderStatus.NEEDS_ATTENTION, {})
    assert awaiting(after, NAMES, NOW) is after
    assert retried(after, NOW).status is OrderStatus.IN_PROGRESS


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


def test_only_what_failed_can_be_retried_and_only_the_unfinished_abandoned() -> None:
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
