"""`duet audit`: sees each kind of trouble on a whole system, and its exit code says whether there is any."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab import audit
from lab.errors import LabError
from lab.ledger import Verdict
from lab.reading import read_books, wait_until_quiet
from lab.synced import repaired_file
from tests.lab.fake_system import (
    ACCEPTED_AT,
    LATER,
    FakeSystem,
    FakeTime,
    make_fake,
    refused_connection,
    run_command,
)


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    """A system with five orders in good order, all in the file of accepted ids."""
    made = make_fake(tmp_path)
    ids = [made.add(member=number % 2 == 0) for number in range(5)]
    made.system.accepted_file.write_text("".join(f"{order_id}\n" for order_id in ids))
    return made


def audited(fake: FakeSystem, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run_command(audit, fake, "audit", "--json", *arguments)
    assert result.stdout, result.output
    return result.exit_code, json.loads(result.stdout)


def test_a_system_in_good_order_balances_over_all_pages(fake: FakeSystem) -> None:
    code, report = audited(fake)
    assert code == 0
    assert report["balances"] is True
    assert (report["accepted"], report["orders"]["completed"]) == (5, 5)
    assert report["services"]["rewards"] == {
        **{verdict.value: 0 for verdict in Verdict},
        "exactly_once": 3,
        "not_owed": 2,
    }


def test_it_says_so_to_a_person_too(fake: FakeSystem) -> None:
    result = run_command(audit, fake, "audit")
    assert result.exit_code == 0
    assert "The ledger balances." in result.output


def test_both_styles_are_held_to_the_same_promise_and_counted_apart(fake: FakeSystem) -> None:
    order_id = fake.add(style="choreography")
    code, report = audited(fake)
    assert (code, report["styles"]["choreography"]["completed"]) == (0, 1)
    assert (report["styles"]["orchestration"]["completed"], report["orders"]["completed"]) == (5, 6)
    assert "by choreography: 0 in progress, 0 need" in run_command(audit, fake, "audit").output
    fake.lose("rewards", order_id)
    code, report = audited(fake)
    assert (code, report["ids"]["rewards"]["missing"]) == (1, [order_id])


def test_who_joined_later_than_an_order_neither_owes_it_anything_nor_comes_too_late(fake: FakeSystem) -> None:
    pending = {"status": "pending", "attempts": 0, "awaited": False}
    fake.add(style="choreography", warehouse=pending)
    acted = fake.add(style="choreography", email={**pending, "status": "succeeded"})
    fake.lose("email", acted)
    fake.effects["email"].append((acted, LATER))
    assert audited(fake)[0] == 0


def test_who_had_retired_before_an_order_owes_it_nothing(fake: FakeSystem) -> None:
    joined = {"name": "email", "joined_at": ACCEPTED_AT, "retired_at": None}
    fake.participants = {"email": joined, "warehouse": {**joined, "name": "warehouse"}}
    order_id = fake.add(style="choreography")
    fake.lose("email", order_id)
    del fake.orders[order_id]["steps"]["email"]
    assert audited(fake)[1]["ids"]["email"]["missing"] == [order_id]
    joined["retired_at"] = ACCEPTED_AT
    code, report = audited(fake)
    assert (code, report["services"]["email"]["not_owed"]) == (0, 1)
    joined["retired_at"] = LATER
    assert audited(fake)[1]["ids"]["email"]["missing"] == [order_id]


def lose_an_effect(fake: FakeSystem) -> tuple[str, str]:
    fake.lose("warehouse", "order-0002")
    return "missing", "order-0002"


def repeat_an_effect(fake: FakeSystem) -> tuple[str, str]:
    fake.effects["email"].append(("order-0003", ACCEPTED_AT))
    return "duplicate", "order-0003"


def credit_a_customer_who_has_not_joined(fake: FakeSystem) -> tuple[str, str]:
    fake.effects["rewards"].append(("order-0002", ACCEPTED_AT))
    return "unexpected", "order-0002"


def act_on_an_order_that_nobody_placed(fake: FakeSystem) -> tuple[str, str]:
    fake.effects["email"].append(("order-9999", ACCEPTED_AT))
    return "unexpected", "order-9999"


def act_after_completion(fake: FakeSystem) -> tuple[str, str]:
    fake.lose("email", "order-0001")
    fake.effects["email"].append(("order-0001", LATER))
    return "late", "order-0001"


def leave_a_step_pending(fake: FakeSystem) -> tuple[str, str]:
    order_id = fake.add(status="in_progress", email={"status": "pending", "attempts": 3})
    return "unfinished", order_id


@pytest.mark.parametrize(
    "spoil",
    [
        lose_an_effect,
        repeat_an_effect,
        credit_a_customer_who_has_not_joined,
        act_on_an_order_that_nobody_placed,
        act_after_completion,
        leave_a_step_pending,
    ],
)
def test_each_kind_of_trouble_is_named_with_its_order_and_fails_the_audit(
    fake: FakeSystem, spoil: Callable[[FakeSystem], tuple[str, str]]
) -> None:
    kind, order_id = spoil(fake)
    code, report = audited(fake)
    assert code == 1
    assert report["balances"] is False
    assert report[kind] == 1
    assert [ids[kind] for ids in report["ids"].values() if isinstance(ids, dict) and kind in ids] == [
        [order_id]
    ]
    people = run_command(audit, fake, "audit")
    assert people.exit_code == 1
    assert "does not balance" in people.output
    assert order_id in people.output


def test_an_accepted_id_that_checkout_does_not_know_is_lost(fake: FakeSystem) -> None:
    with fake.system.accepted_file.open("a") as file:
        file.write("order-7777\n")
    code, report = audited(fake)
    assert code == 1
    assert report["lost"] == 1
    assert report["ids"]["lost"] == ["order-7777"]


def test_orders_that_are_in_no_file_are_audited_all_the_same(fake: FakeSystem) -> None:
    fake.system.accepted_file.unlink()
    fake.lose("email", "order-0004")
    code, report = audited(fake)
    assert (code, report["accepted"], report["missing"]) == (1, 0, 1)


def test_a_refused_step_is_no_trouble_where_the_order_says_so(fake: FakeSystem) -> None:
    failed = {"status": "failed", "attempts": 1, "reason": "sku-refused"}
    fake.add(status="needs_attention", warehouse=failed)
    code, report = audited(fake)
    assert (code, report["refused"]) == (0, 1)


def test_an_effect_that_was_sent_again_by_repair_is_not_late(fake: FakeSystem) -> None:
    act_after_completion(fake)
    repaired_file(fake.system).write_text("email order-0001\n")
    assert audited(fake)[0] == 0
    repaired_file(fake.system).write_text("warehouse order-0001\n")
    assert audited(fake)[0] == 1


def test_only_the_first_twenty_ids_of_a_kind_are_shown(fake: FakeSystem) -> None:
    for _ in range(25):
        fake.lose("email", fake.add())
    code, report = audited(fake)
    assert (code, report["missing"], len(report["ids"]["email"]["missing"])) == (1, 25, 20)
    assert "and 5 more" in run_command(audit, fake, "audit").output


def test_a_chosen_file_that_is_not_there_is_wrong_usage(fake: FakeSystem) -> None:
    result = run_command(audit, fake, "audit", "--accepted", str(fake.system.data / "typo"))
    assert result.exit_code == 2
    assert "typo" in result.stderr


def test_an_order_that_cannot_be_read_ends_the_audit_instead_of_being_left_out(fake: FakeSystem) -> None:
    del fake.orders["order-0002"]["customer"]
    result = run_command(audit, fake, "audit")
    assert result.exit_code == 1
    assert "cannot be read" in result.stderr


def test_a_service_that_shows_no_effects_to_us_ends_the_audit(fake: FakeSystem) -> None:
    tokens = json.loads(fake.system.tokens_file.read_text())
    before = fake.before

    def change_token(request: httpx.Request) -> None:
        before(request)
        if request.url.path == "/effects":
            fake.system.tokens_file.write_text(json.dumps({**tokens, "operator": "another"}))

    fake.before = change_token
    result = run_command(audit, fake, "audit")
    assert result.exit_code == 1
    assert "401" in result.stderr


async def test_an_order_that_came_in_while_the_pages_were_read_makes_it_read_again(fake: FakeSystem) -> None:
    came: list[str] = []

    def order_meanwhile(request: httpx.Request) -> None:
        if request.url.path == "/effects" and not came:
            came.append(fake.add())

    fake.before = order_meanwhile
    async with fake.client as client:
        orders, effects = await read_books(client, fake.system, frozenset(), FakeTime().patience(5))
    assert came[0] in orders
    assert came[0] in {effect.order_id for effect in effects["email"]}


async def test_a_system_under_load_is_not_judged(fake: FakeSystem) -> None:
    def order_meanwhile(request: httpx.Request) -> None:
        if request.url.path == "/effects":
            fake.add()

    fake.before = order_meanwhile
    async with fake.client as client:
        with pytest.raises(LabError, match="stop the load"):
            await read_books(client, fake.system, frozenset(), FakeTime().patience(5))


async def test_waiting_outlives_a_checkout_that_is_down_and_ends_when_all_is_final(fake: FakeSystem) -> None:
    time = FakeTime()
    order_id = fake.add(status="in_progress")
    fake.trouble = [refused_connection] * 3

    def finish(_: httpx.Request) -> None:
        if time.now > 20:
            fake.orders[order_id]["status"] = "completed"

    fake.before = finish
    async with fake.client as client:
        await wait_until_quiet(client, fake.system, time.patience(60))
    assert 20 < time.now < 22


async def test_waiting_is_bounded(fake: FakeSystem) -> None:
    time = FakeTime()
    fake.add(status="in_progress")
    async with fake.client as client:
        await wait_until_quiet(client, fake.system, time.patience(10))
    assert time.now == pytest.approx(10, abs=0.3)
