"""`duet stuck`: what waits for a person is listed with its cause, and is retried or given up on demand."""

import json
from pathlib import Path

import pytest

from lab import stuck
from tests.lab.fake_system import FakeSystem, make_fake, run_command

REFUSED = {"status": "failed", "attempts": 1, "reason": "sku-refused"}
ABANDONED = {"status": "failed", "attempts": 1, "reason": "abandoned"}
WAITING = {"status": "pending", "attempts": 9, "last_error": "unreachable", "since": "2026-11-22T09:00:00Z"}


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    """One completed order, two refused ones, one overdue, one given up."""
    made = make_fake(tmp_path)
    made.add()
    made.add(status="needs_attention", warehouse=dict(REFUSED))
    made.add(status="needs_attention", warehouse=dict(REFUSED))
    made.add(status="in_progress", email=dict(WAITING))
    made.add(status="needs_attention", rewards=dict(ABANDONED))
    return made


def test_the_list_says_which_step_and_why(fake: FakeSystem) -> None:
    result = run_command(stuck, fake, "stuck", "list")
    assert result.exit_code == 0, result.output
    assert "order-0001" not in result.output
    assert "order-0002  needs attention" in result.output
    assert "warehouse: failed after 1 try: sku-refused" in result.output
    assert "email: pending after 9 tries: unreachable since 2026-11-22T09:00:00Z" in result.output


def test_a_choreographed_order_says_whom_it_waits_for_and_since_when(fake: FakeSystem) -> None:
    silent = {"status": "pending", "attempts": 0, "last_error": "no-outcome", "since": "2026-11-22T09:00:00Z"}
    later = {"status": "pending", "attempts": 0, "awaited": False}
    order_id = fake.add(style="choreography", status="in_progress", warehouse=silent, fraud=later)
    listed = run_command(stuck, fake, "stuck", "list").output
    assert f"{order_id}  in progress, choreography, accepted " in listed
    assert "  warehouse: pending after 0 tries: no-outcome since 2026-11-22T09:00:00Z" in listed
    assert "fraud" not in listed
    shown = run_command(stuck, fake, "stuck", "show", order_id).output
    assert "waiting for warehouse (no-outcome since 2026-11-22T09:00:00Z)\n" in shown
    assert "pending, not awaited" in shown


def test_a_choreographed_order_that_nobody_has_joined_for_says_so(fake: FakeSystem) -> None:
    order_id = fake.add(style="choreography", status="in_progress")
    fake.orders[order_id]["steps"] = {}
    assert "no step is known yet: nobody has joined" in run_command(stuck, fake, "stuck", "list").output
    shown = run_command(stuck, fake, "stuck", "show", order_id)
    assert "waiting for somebody to take part" in shown.output


def test_an_order_whose_awaited_steps_were_given_up_is_not_stuck_whatever_a_later_joiner_does(
    fake: FakeSystem,
) -> None:
    order_id = fake.add(
        style="choreography",
        status="needs_attention",
        warehouse=dict(ABANDONED),
        fraud={**REFUSED, "awaited": False},
    )
    assert order_id not in run_command(stuck, fake, "stuck", "list").output


def test_the_list_wants_of_orders_in_progress_only_those_over_a_minute_old(fake: FakeSystem) -> None:
    run_command(stuck, fake, "stuck", "list")
    asked = [dict(sent.url.params) for sent in fake.requests if sent.url.path == "/checkouts"]
    in_progress = [query for query in asked if query["status"] == "in_progress"]
    assert in_progress
    assert all(query["older_than_s"] == "60" for query in in_progress)


def test_a_list_that_is_cut_says_that_there_is_more(fake: FakeSystem) -> None:
    told = json.loads(run_command(stuck, fake, "stuck", "list", "--limit", "2", "--json").stdout)
    assert [order["order_id"] for order in told["checkouts"]] == ["order-0002", "order-0003"]
    assert told["more"] is True
    assert "and more" in run_command(stuck, fake, "stuck", "list", "--limit", "2").output


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    assert "No order is stuck." in run_command(stuck, make_fake(tmp_path), "stuck", "list").output


def test_one_order_is_shown_with_its_steps_and_what_to_do(fake: FakeSystem) -> None:
    result = run_command(stuck, fake, "stuck", "show", "order-0002")
    assert result.exit_code == 0, result.output
    assert "sku-refused" in result.output
    assert "duet stuck retry order-0002" in result.output


def test_an_unknown_order_is_one_line_and_exit_one(fake: FakeSystem) -> None:
    result = run_command(stuck, fake, "stuck", "show", "../order/0001")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_retry_and_abandon_take_several_ids(fake: FakeSystem) -> None:
    assert run_command(stuck, fake, "stuck", "retry", "order-0002", "order-0003").exit_code == 0
    assert fake.orders["order-0002"]["steps"]["warehouse"]["status"] == "pending"
    assert fake.orders["order-0003"]["status"] == "in_progress"


def test_what_checkout_refuses_is_reported_and_the_others_are_done(fake: FakeSystem) -> None:
    result = run_command(stuck, fake, "stuck", "retry", "order-0001", "order-0002")
    assert result.exit_code == 1
    assert "order-0001: The order's status does not allow this" in result.stderr
    assert fake.orders["order-0002"]["status"] == "in_progress"


def test_retrying_all_leaves_alone_what_was_given_up_or_is_under_way(fake: FakeSystem) -> None:
    result = run_command(stuck, fake, "stuck", "retry", "--all", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert sorted(json.loads(result.stdout)) == ["order-0002", "order-0003"]
    assert fake.orders["order-0005"]["steps"]["rewards"] == ABANDONED


def test_abandoning_gives_the_failed_step_its_reason(fake: FakeSystem) -> None:
    assert run_command(stuck, fake, "stuck", "abandon", "order-0002").exit_code == 0
    assert fake.orders["order-0002"]["steps"]["warehouse"]["reason"] == "abandoned"


@pytest.mark.parametrize("arguments", [["retry"], ["retry", "order-0002", "--all"], ["abandon", "--all"]])
def test_doing_it_to_all_wants_to_be_said_and_confirmed(fake: FakeSystem, arguments: list[str]) -> None:
    result = run_command(stuck, fake, "stuck", *arguments)
    assert result.exit_code == 2
    assert not [sent for sent in fake.requests if sent.method == "POST"]
