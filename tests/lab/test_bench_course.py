"""Orders in phases, and what became of them over time: the generator, and the figures from its rows."""

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

import orjson
import pytest

from lab.bench import course, phased
from lab.bench.course import Bound, Offered
from lab.bench.orders import prepare_orders
from lab.bench.phased import Phase, PhasedPlan, intended_times, read_plan, run_phased
from tests.lab.fake_checkout import fake_checkout, reply

ORDERS = prepare_orders(seed=1, count=20)


def plan_for(port: int, folder: Path, *phases: Phase, starts_in_s: float = 0.5) -> PhasedPlan:
    return PhasedPlan(port, "orchestration", phases, time.time() + starts_in_s, 1, str(folder / "rows"))


def test_orders_leave_evenly_spaced_within_each_phase() -> None:
    assert list(intended_times([Phase(2, 1), Phase(4, 0.5), Phase(1, 1)])) == pytest.approx(
        [0.25, 0.75, 1.125, 1.375, 2.0]
    )


def test_a_plan_comes_through_a_pipe_unchanged(tmp_path: Path) -> None:
    plan = plan_for(8000, tmp_path, Phase(50, 2), Phase(1000, 30))
    assert read_plan(orjson.dumps(asdict(plan)).decode()) == plan
    assert plan.length_s == 32


async def test_every_order_has_a_row_with_its_answer_and_leaves_at_its_time(tmp_path: Path) -> None:
    def answer(_: object, number: int) -> bytes:
        return reply(503 if number % 2 == 0 else 202, f"o-{number}")

    async with fake_checkout(answer) as fake:
        plan = plan_for(fake.port, tmp_path, Phase(50, 0.2), Phase(200, 0.1))
        found = await run_phased(plan, ORDERS)
    rows = json.loads((tmp_path / "rows").read_bytes())
    assert found.due == len(rows) == 30
    assert sorted(at - plan.starts_at for at, *_ in rows) == pytest.approx(
        list(intended_times(plan.phases)), abs=0.005
    )
    assert sum(slug == "status-503" and order_id is None for *_, slug, order_id in rows) == 15
    assert len({order_id for *_, slug, order_id in rows if slug is None}) == 15
    assert set(fake.paths) == {b"/checkouts?style=orchestration"}


async def test_an_order_without_an_answer_has_a_row_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phased, "DRAIN_TIMEOUT_S", 0.05)
    async with fake_checkout(lambda request, number: reply(202, f"o-{number}")) as fake:
        fake.stalled_until = asyncio.get_running_loop().time() + 60
        await run_phased(plan_for(fake.port, tmp_path, Phase(50, 0.1)), ORDERS)
    rows = json.loads((tmp_path / "rows").read_bytes())
    assert [(slug, order_id) for *_, slug, order_id in rows] == [("unanswered", None)] * 5


def served(at: float, takes_s: float = 0.05) -> Offered:
    return Offered(at, at + 0.01, None, at + takes_s)


def turned_away(at: float) -> Offered:
    return Offered(at, at + 0.02, course.OVERLOADED, None)


def every_tenth(since: float, until: float, takes_s: float = 0.05) -> list[Offered]:
    return [served(since + n / 10, takes_s) for n in range(round((until - since) * 10))]


def test_rows_and_books_make_orders_in_the_order_in_which_they_were_due() -> None:
    rows: list[phased.Row] = [
        (12.0, 20.0, None, "b"),
        (11.0, 500.0, "status-503", None),
        (10.0, 10.0, None, "a"),
        (13.0, 10.0, None, "unknown"),
    ]
    assert course.offered(rows, {"a": 10.5, "b": None}) == [
        Offered(10.0, 10.01, None, 10.5),
        Offered(11.0, 11.5, "status-503", None),
        Offered(12.0, 12.02, None, None),
        Offered(13.0, 13.01, None, None),
    ]


def test_answers_are_counted_and_timed_by_their_kind() -> None:
    orders = [served(1.0), served(2.0), turned_away(3.0), Offered(4.0, 5.0, "unanswered", None)]
    assert len(course.accepted(orders)) == 2
    assert course.by_slug(orders) == {"status-503": 1, "unanswered": 1}
    assert course.answer_ms(orders, course.OVERLOADED)["p99"] == pytest.approx(20)
    assert course.answer_ms(orders, None)["p99"] == pytest.approx(10)
    assert course.answer_ms(orders, "status-500") == {}
    assert course.completion_ms(orders)["max"] == pytest.approx(50)


def test_what_is_due_in_a_time_and_what_is_completed_in_it_are_two_things() -> None:
    orders = [served(1.0, 5.0), served(5.0, 0.5), served(6.0, 9.0), turned_away(5.5)]
    assert course.due_in(orders, 5.0, 6.0) == [orders[1], orders[3]]
    assert course.completed_in(orders, 5.0, 6.5) == 2


def test_a_backlog_is_what_was_accepted_and_is_not_completed() -> None:
    never = Offered(2.0, 2.1, None, None)
    orders = [served(1.0, 1.0), served(1.0, 3.0), never, turned_away(2.0), served(2.9, 9.0)]
    assert course.backlog_at(orders, 2.5) == 2  # the last was not there yet
    assert course.backlog_at(orders, 100.0) == 1


def test_a_backlog_is_gone_with_the_last_order_that_was_due_before() -> None:
    orders = [served(1.0, 12.0), served(2.0, 1.0), turned_away(2.0), served(20.0, 60.0)]
    assert course.drained_after_s(orders, 10.0) == pytest.approx(3.0)
    assert course.drained_after_s(orders[1:], 10.0) == 0.0
    assert course.drained_after_s([*orders, Offered(3.0, 3.1, None, None)], 10.0) is None


def test_usual_is_twice_the_p99_of_before_and_a_second_at_least() -> None:
    assert course.usual_ms([served(1.0, 0.7)]) == pytest.approx(1400)
    assert course.usual_ms([served(1.0, 0.1)]) == 1000
    assert course.usual_ms([]) == 1000


def test_it_is_normal_at_once_where_nothing_was_late() -> None:
    assert course.normal_after_s(every_tenth(0, 10), 5.0, 10.0, 1000) == 0.0


@pytest.mark.parametrize(
    "bad",
    [turned_away(7.0), served(7.0, 1.5), Offered(7.0, 7.1, None, None), Offered(7.0, 8.0, "lost", None)],
)
def test_it_is_normal_after_the_last_order_that_was_not_served_as_usual(bad: Offered) -> None:
    orders = sorted([*every_tenth(0, 15), bad], key=lambda each: each.intended)
    assert course.normal_after_s(orders, 5.0, 15.0, 1000) == pytest.approx(2.0)


def test_a_short_calm_between_two_bad_orders_is_not_normal_yet_and_a_long_one_is() -> None:
    calm = every_tenth(0, 20)
    short = sorted([*calm, turned_away(6.0), turned_away(8.9)], key=lambda each: each.intended)
    long = sorted([*calm, turned_away(6.0), turned_away(9.1)], key=lambda each: each.intended)
    assert course.normal_after_s(short, 5.0, 20.0, 1000) == pytest.approx(3.9)
    assert course.normal_after_s(long, 5.0, 20.0, 1000) == pytest.approx(1.0)


def test_it_never_was_normal_if_too_little_was_seen_of_it() -> None:
    orders = sorted([*every_tenth(0, 10), turned_away(7.5)], key=lambda each: each.intended)
    assert course.normal_after_s(orders, 5.0, 10.0, 1000) is None
    assert course.normal_after_s([turned_away(n / 10) for n in range(100)], 5.0, 10.0, 1000) is None


def test_goodput_is_full_from_the_second_from_which_as_much_is_completed_as_is_offered() -> None:
    slow = [Offered(n / 10, n / 10, None, n / 5) for n in range(50)]  # half the rate, until 10 s
    caught_up = every_tenth(10, 30, takes_s=0.0)
    assert course.full_after_s(slow + caught_up, 5.0, 30.0, rate=10) == pytest.approx(5.0)
    assert course.full_after_s(every_tenth(0, 30, 0.0), 5.0, 30.0, rate=10) == 0.0


def test_goodput_that_falls_again_was_not_full_and_one_that_never_comes_is_none() -> None:
    again = [*every_tenth(0, 12, 0.0), *every_tenth(15, 30, 0.0)]
    assert course.full_after_s(again, 5.0, 30.0, rate=10) == pytest.approx(10.0)
    assert course.full_after_s(every_tenth(0, 30, 0.0), 5.0, 30.0, rate=11) is None
    assert course.full_after_s([], 5.0, 30.0, rate=10) is None


@pytest.mark.parametrize(
    ("kind", "found", "met"),
    [
        ("at_least", 90.0, True),
        ("at_least", 89.9, False),
        ("at_most", 5.0, True),
        ("at_most", 5.1, False),
        ("at_most", None, False),
        ("at_least", None, False),
    ],
)
def test_a_bound_is_met_on_its_right_side_and_never_by_what_did_not_come(
    kind: str, found: float | None, met: bool
) -> None:
    bound = 90.0 if kind == "at_least" else 5.0
    assert Bound("x", found, "at_least" if kind == "at_least" else "at_most", bound, "s").met is met
