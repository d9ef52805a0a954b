"""The ledger: each verdict is given where it is due, and nothing unbalances or balances it by mistake."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.ledger import (
    CLOCK_GRANULARITY,
    COMPLETED,
    IN_PROGRESS,
    NEEDS_ATTENTION,
    Effect,
    Order,
    Report,
    Step,
    Verdict,
    judge,
    reconcile,
)

NINE = datetime(2026, 11, 22, 9, tzinfo=UTC)
COMPLETED_AT = NINE + timedelta(seconds=2)
SERVICES = ("email", "warehouse", "rewards")
DONE = Step("succeeded")
SKIPPED = Step("skipped", "the customer has not joined rewards")


def an_order(
    order_id: str = "a",
    *,
    style: str = "orchestration",
    member: bool = True,
    status: str = COMPLETED,
    **steps: Step,
) -> Order:
    usual = {"email": DONE, "warehouse": DONE, "rewards": DONE if member else SKIPPED}
    completed_at = COMPLETED_AT if status == COMPLETED else None
    return Order(order_id, style, status, member, completed_at, {**usual, **steps}, accepted_at=NINE)


@pytest.mark.parametrize("service", SERVICES)
def test_one_effect_is_exactly_once_and_none_is_missing_and_two_are_duplicate(service: str) -> None:
    assert judge(an_order(), service, [NINE]) is Verdict.EXACTLY_ONCE
    assert judge(an_order(), service, []) is Verdict.MISSING
    assert judge(an_order(), service, [NINE, NINE]) is Verdict.DUPLICATE


def test_a_choreographed_order_is_owed_nothing_by_who_had_retired_before_it() -> None:
    order = an_order(style="choreography")
    order = replace(order, steps={name: step for name, step in order.steps.items() if name != "email"})
    late = COMPLETED_AT + timedelta(hours=1)
    for retired_at, times, verdict in (
        (NINE, [], Verdict.NOT_OWED),
        (NINE, [late], Verdict.EXACTLY_ONCE),  # it was still running, and untold
        (NINE, [late, late], Verdict.DUPLICATE),
        (NINE + timedelta(seconds=1), [], Verdict.MISSING),
        (None, [], Verdict.MISSING),
        (None, [late], Verdict.LATE),
    ):
        assert judge(order, "email", times, retired_at=retired_at) is verdict
    assert judge(replace(order, style="orchestration"), "email", [], retired_at=NINE) is Verdict.MISSING
    assert judge(an_order(style="choreography"), "email", [], retired_at=NINE) is Verdict.MISSING


def test_a_customer_who_has_not_joined_owes_no_points_entry_and_must_have_none() -> None:
    order = an_order(member=False)
    assert judge(order, "rewards", []) is Verdict.NOT_OWED
    assert judge(order, "rewards", [NINE]) is Verdict.UNEXPECTED


def test_a_member_whose_step_was_skipped_misses_the_entry_all_the_same() -> None:
    assert judge(an_order(rewards=SKIPPED), "rewards", []) is Verdict.MISSING


def test_a_failed_step_of_an_order_that_says_so_is_refused() -> None:
    order = an_order(status=NEEDS_ATTENTION, warehouse=Step("failed", "sku-refused"))
    assert judge(order, "warehouse", []) is Verdict.REFUSED
    assert judge(order, "email", [NINE]) is Verdict.EXACTLY_ONCE


def test_an_effect_of_a_refused_step_is_unexpected_but_of_an_abandoned_one_it_may_be() -> None:
    refused = an_order(status=NEEDS_ATTENTION, warehouse=Step("failed", "sku-refused"))
    abandoned = an_order(status=NEEDS_ATTENTION, warehouse=Step("failed", "abandoned"))
    assert judge(refused, "warehouse", [NINE]) is Verdict.UNEXPECTED
    assert judge(abandoned, "warehouse", [NINE]) is Verdict.REFUSED
    assert judge(abandoned, "warehouse", []) is Verdict.REFUSED
    assert judge(abandoned, "warehouse", [NINE, NINE]) is Verdict.DUPLICATE


@pytest.mark.parametrize("step", [Step("failed", "sku-refused"), Step("pending"), SKIPPED])
def test_an_order_that_says_completed_owes_its_effects_whatever_its_steps_say(step: Step) -> None:
    assert judge(an_order(email=step), "email", []) is Verdict.MISSING


def test_a_pending_step_is_unfinished_until_its_effect_is_there() -> None:
    order = an_order(status=IN_PROGRESS, email=Step("pending"))
    assert judge(order, "email", []) is Verdict.UNFINISHED
    assert judge(order, "email", [NINE]) is Verdict.EXACTLY_ONCE
    assert judge(order, "warehouse", []) is Verdict.MISSING


def test_an_effect_after_completion_is_late_unless_it_was_sent_again_by_the_operator() -> None:
    just_so = COMPLETED_AT + CLOCK_GRANULARITY
    after = just_so + timedelta(microseconds=1)
    assert judge(an_order(), "email", [just_so]) is Verdict.EXACTLY_ONCE
    assert judge(an_order(), "email", [after]) is Verdict.LATE
    assert judge(an_order(), "email", [after], repaired=True) is Verdict.EXACTLY_ONCE


def test_a_service_that_did_not_exist_yesterday_owes_what_the_steps_name_it_for() -> None:
    assert judge(an_order(fraud=DONE), "fraud", []) is Verdict.MISSING
    assert judge(an_order(fraud=DONE), "fraud", [NINE]) is Verdict.EXACTLY_ONCE
    assert judge(an_order(fraud=SKIPPED), "fraud", []) is Verdict.NOT_OWED
    assert judge(an_order(), "fraud", []) is Verdict.NOT_OWED
    assert judge(an_order(), "fraud", [NINE]) is Verdict.UNEXPECTED


@pytest.mark.parametrize(
    "step", [DONE, Step("pending"), Step("failed", "too-risky"), Step("skipped", "no need")]
)
def test_who_joined_later_owes_nothing_and_holds_no_order_up(step: Step) -> None:
    for status in (COMPLETED, IN_PROGRESS, NEEDS_ATTENTION):
        order = an_order(style="choreography", status=status, fraud=replace(step, awaited=False))
        expected = Verdict.REFUSED if step.status == "failed" else Verdict.NOT_OWED
        assert judge(order, "fraud", []) is expected


@pytest.mark.parametrize("step", [None, Step("succeeded", awaited=False), Step("pending", awaited=False)])
def test_who_joined_later_may_act_at_any_time_but_once(step: Step | None) -> None:
    order = an_order(style="choreography", **({} if step is None else {"fraud": step}))
    hours_later = COMPLETED_AT + timedelta(hours=1)
    assert judge(order, "fraud", [hours_later]) is Verdict.EXACTLY_ONCE
    assert judge(order, "fraud", [NINE, hours_later]) is Verdict.DUPLICATE


@pytest.mark.parametrize("step", [Step("skipped", "no need", False), Step("failed", "too-risky", False)])
def test_who_joined_later_and_says_that_it_did_nothing_has_no_effect(step: Step) -> None:
    assert judge(an_order(style="choreography", fraud=step), "fraud", [NINE]) is Verdict.UNEXPECTED


def test_points_for_a_customer_who_has_not_joined_are_unexpected_even_if_nobody_waited_for_them() -> None:
    order = an_order(style="choreography", member=False, rewards=Step("succeeded", awaited=False))
    assert judge(order, "rewards", [NINE]) is Verdict.UNEXPECTED


def test_an_order_that_does_not_name_one_of_the_three_owes_it_all_the_same() -> None:
    order = replace(an_order(style="choreography"), steps={})
    assert [judge(order, service, []) for service in SERVICES] == [Verdict.MISSING] * 3


@pytest.mark.parametrize("service", [*SERVICES, "fraud"])
def test_a_step_of_a_retired_participant_counts_as_refused_whether_it_acted_or_not(service: str) -> None:
    order = an_order(style="choreography", **{service: Step("skipped", "participant retired")})
    assert judge(order, service, []) is Verdict.REFUSED
    assert judge(order, service, [NINE]) is Verdict.REFUSED
    assert judge(order, service, [NINE, NINE]) is Verdict.DUPLICATE


def test_the_report_counts_the_orders_of_each_style() -> None:
    orders = [
        an_order("a"),
        an_order("b", style="choreography"),
        an_order("c", style="choreography", status=IN_PROGRESS),
    ]
    report = reconcile([], orders, {})
    assert report.styles == {
        "orchestration": {IN_PROGRESS: 0, NEEDS_ATTENTION: 0, COMPLETED: 1},
        "choreography": {IN_PROGRESS: 1, NEEDS_ATTENTION: 0, COMPLETED: 1},
    }
    assert report.orders == {IN_PROGRESS: 1, NEEDS_ATTENTION: 0, COMPLETED: 2}


def test_an_empty_ledger_balances() -> None:
    report = reconcile([], [], {name: [] for name in SERVICES})
    assert report.balances
    assert report.orders == {IN_PROGRESS: 0, NEEDS_ATTENTION: 0, COMPLETED: 0}


def test_an_accepted_id_counts_once_however_often_it_is_listed() -> None:
    effects = {name: [Effect("a", NINE)] for name in SERVICES}
    report = reconcile(["a", "a"], [an_order()], effects)
    assert report.balances
    assert report.accepted == 1


def test_a_repair_excuses_only_the_service_that_was_repaired() -> None:
    late = {name: [Effect("a", COMPLETED_AT + timedelta(hours=1))] for name in SERVICES}
    report = reconcile(["a"], [an_order()], late, {"email": frozenset("a")})
    assert report.counts["email"][Verdict.EXACTLY_ONCE] == 1
    assert report.total(Verdict.LATE) == 2


Books = tuple[list[Order], dict[str, list[Effect]]]


@st.composite
def balanced_books(draw: st.DrawFn) -> Books:
    """Orders that are final, and the effects that they owe, in any order of arrival."""
    orders: list[Order] = []
    for number in range(draw(st.integers(1, 8))):
        member = draw(st.booleans())
        failed = draw(st.sets(st.sampled_from(SERVICES if member else SERVICES[:2])))
        steps = {name: Step("failed", draw(st.sampled_from(["refused", "abandoned"]))) for name in failed}
        status = NEEDS_ATTENTION if failed else COMPLETED
        style = draw(st.sampled_from(["orchestration", "choreography"]))
        orders.append(an_order(f"order-{number}", style=style, member=member, status=status, **steps))
    effects = {
        name: draw(
            st.permutations(
                [
                    Effect(order.order_id, NINE + timedelta(milliseconds=draw(st.integers(0, 2000))))
                    for order in orders
                    if order.steps[name].status == "succeeded"
                ]
            )
        )
        for name in SERVICES
    }
    return orders, effects


def audit(books: Books) -> Report:
    orders, effects = books
    return reconcile([order.order_id for order in orders], orders, effects)


@given(balanced_books())
def test_books_in_order_balance_and_every_order_has_one_verdict_a_service(books: Books) -> None:
    report = audit(books)
    assert report.balances
    for counts in report.counts.values():
        assert sum(counts.values()) == len(books[0])
    assert report.total(Verdict.EXACTLY_ONCE) == sum(len(found) for found in books[1].values())


def drop_effect(books: Books, service: str, at: int) -> Verdict | None:
    del books[1][service][at]
    return Verdict.MISSING


def repeat_effect(books: Books, service: str, at: int) -> Verdict | None:
    books[1][service].append(books[1][service][at])
    return Verdict.DUPLICATE


def invent_effect(books: Books, service: str, at: int) -> Verdict | None:
    books[1][service].insert(at, Effect("nobody's", NINE))
    return Verdict.UNEXPECTED


def delay_effect(books: Books, service: str, at: int) -> Verdict | None:
    effect = books[1][service][at]
    order = next(order for order in books[0] if order.order_id == effect.order_id)
    books[0][books[0].index(order)] = replace(order, status=COMPLETED, completed_at=COMPLETED_AT)
    books[1][service][at] = replace(effect, at=COMPLETED_AT + timedelta(seconds=1))
    return Verdict.LATE


def misname_effect(books: Books, service: str, at: int) -> Verdict | None:
    books[1][service][at] = replace(books[1][service][at], order_id="nobody's")
    return Verdict.MISSING


def leave_unfinished(books: Books, service: str, at: int) -> Verdict | None:
    order_id = books[1][service].pop(at).order_id
    order = next(order for order in books[0] if order.order_id == order_id)
    steps = {**order.steps, service: Step("pending")}
    books[0][books[0].index(order)] = replace(order, status=IN_PROGRESS, completed_at=None, steps=steps)
    return Verdict.UNFINISHED


def take_membership_away(books: Books, service: str, at: int) -> Verdict | None:
    order_id = books[1][service][at].order_id
    order = next(order for order in books[0] if order.order_id == order_id)
    books[0][books[0].index(order)] = replace(order, rewards_member=False)
    return Verdict.UNEXPECTED if service == "rewards" or "rewards" in _performed(order) else None


def _performed(order: Order) -> set[str]:
    return {name for name, step in order.steps.items() if step.status == "succeeded"}


@pytest.mark.parametrize(
    "spoil",
    [
        drop_effect,
        repeat_effect,
        invent_effect,
        delay_effect,
        misname_effect,
        leave_unfinished,
        take_membership_away,
    ],
)
@settings(max_examples=40)
@given(data=st.data())
def test_one_wrong_entry_unbalances_the_books_and_is_called_by_its_name(
    spoil: Callable[[Books, str, int], Verdict | None], data: st.DataObject
) -> None:
    books = data.draw(balanced_books().filter(lambda books: any(books[1].values())))
    service = data.draw(st.sampled_from([name for name in SERVICES if books[1][name]]))
    expected = spoil(books, service, data.draw(st.integers(0, len(books[1][service]) - 1)))
    report = audit(books)
    if expected is not None:
        assert not report.balances
        assert report.total(expected) >= 1
        assert any(expected in troubles for troubles in report.troubles.values())


@given(balanced_books(), st.data())
def test_an_accepted_order_that_checkout_does_not_know_is_lost(books: Books, data: st.DataObject) -> None:
    orders, effects = books
    accepted = [order.order_id for order in orders]
    gone = data.draw(st.sampled_from(orders))
    orders.remove(gone)
    report = reconcile(accepted, orders, effects)
    assert not report.balances
    assert report.lost == [gone.order_id]


def test_an_order_in_progress_unbalances_the_books_even_if_all_its_effects_are_there() -> None:
    effects = {name: [Effect("a", NINE)] for name in SERVICES}
    report = reconcile(["a"], [an_order(status=IN_PROGRESS)], effects)
    assert report.unfinished == ["a"]
    assert not report.balances
