"""`duet repair`: sends again exactly what a service lost, by the conductor's own commands, however often."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkout.orchestration import CALLS
from checkout.orders import first_progress
from checkout.schemas import CheckoutRequest, represent, to_json
from lab import audit, repair
from lab.commands import SERVICES, command_for
from lab.samples import mixed_order, sample_order
from lab.synced import read_repaired
from tests.lab.fake_system import COMMAND_PATHS, FakeSystem, make_fake, run_command


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    made = make_fake(tmp_path)
    for number in range(6):
        made.add(member=number % 2 == 0)
    return made


def repaired(fake: FakeSystem, service: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run_command(repair, fake, "repair", service, "--json", *arguments)
    assert result.stdout, result.output
    return result.exit_code, json.loads(result.stdout)


def test_orders_of_both_styles_are_sent_again_by_the_same_command(fake: FakeSystem) -> None:
    heard = fake.add(style="choreography")
    for order_id in ("order-0001", heard):
        fake.lose("warehouse", order_id)
    code, told = repaired(fake, "warehouse")
    assert (code, told["resent"]) == (0, ["order-0001", heard])
    first, second = (json.loads(post.content) for post in fake.posts("/shipments"))
    assert {**first, "order_id": heard} == second
    assert run_command(audit, fake, "audit").exit_code == 0


def test_what_was_skipped_or_retired_is_not_missing(fake: FakeSystem) -> None:
    for reason in ("the customer has not joined rewards", "participant retired"):
        skipped = {"status": "skipped", "attempts": 1, "reason": reason}
        fake.add(style="choreography", member=False, rewards=skipped)
    assert repaired(fake, "rewards")[1]["missing"] == []


def test_where_nothing_is_lost_nothing_is_sent(fake: FakeSystem) -> None:
    code, told = repaired(fake, "rewards")
    assert (code, told["succeeded"], told["found"], told["missing"]) == (0, 3, 3, [])
    assert not fake.posts("/balances")
    assert read_repaired(fake.system) == {}


@pytest.mark.parametrize("service", SERVICES)
def test_what_was_lost_is_sent_again_and_the_ledger_balances(fake: FakeSystem, service: str) -> None:
    lost = [order_id for order_id, _ in fake.effects[service][1:3]]
    for order_id in lost:
        fake.lose(service, order_id)
    assert run_command(audit, fake, "audit").exit_code == 1
    code, told = repaired(fake, service)
    assert (code, told["missing"], told["resent"], told["failed"]) == (0, lost, lost, {})
    assert run_command(audit, fake, "audit").exit_code == 0
    sent = fake.posts(COMMAND_PATHS[service])
    assert {post.headers["Authorization"] for post in sent} == {f"Bearer to-{service}"}
    assert read_repaired(fake.system) == {service: frozenset(lost)}


def test_repairing_twice_sends_once(fake: FakeSystem) -> None:
    fake.lose("email", "order-0001")
    repaired(fake, "email")
    code, told = repaired(fake, "email")
    assert (code, told["missing"]) == (0, [])
    assert len(fake.posts("/emails")) == 1


def test_a_dry_run_only_says_what_is_missing(fake: FakeSystem) -> None:
    fake.lose("email", "order-0001")
    code, told = repaired(fake, "email", "--dry-run")
    assert (code, told["missing"], told["resent"]) == (0, ["order-0001"], [])
    assert not fake.posts("/emails")
    assert read_repaired(fake.system) == {}


def test_steps_that_have_not_succeeded_are_left_to_checkout(fake: FakeSystem) -> None:
    fake.add(status="in_progress", email={"status": "pending", "attempts": 4})
    fake.add(status="needs_attention", email={"status": "failed", "attempts": 1, "reason": "refused"})
    assert repaired(fake, "email")[1]["missing"] == []


def test_what_the_service_refuses_is_reported_and_the_rest_is_sent(fake: FakeSystem) -> None:
    fake.lose("warehouse", "order-0001")
    fake.lose("warehouse", "order-0002")
    fake.refuse = lambda command: command["order_id"] == "order-0001"
    code, told = repaired(fake, "warehouse")
    assert (code, told["resent"]) == (1, ["order-0002"])
    assert "The service will not" in told["failed"]["order-0001"]


@pytest.mark.parametrize("name", ["checkout", "typo", "fraud"])
def test_only_a_service_that_takes_commands_can_be_repaired(fake: FakeSystem, name: str) -> None:
    fake.add(style="choreography", fraud={"status": "succeeded", "attempts": 1, "awaited": False})
    result = run_command(repair, fake, "repair", name)
    assert result.exit_code == 2
    assert "email, warehouse, rewards" in result.stderr


bodies = st.one_of(
    st.just(sample_order()), st.builds(mixed_order, st.integers(0, 1000), rewards_member=st.booleans())
)


@pytest.mark.parametrize("service", SERVICES)
@given(body=bodies)
def test_the_rebuilt_command_is_what_the_conductor_sends(service: str, body: dict[str, Any]) -> None:
    order = CheckoutRequest.model_validate(body).to_order(
        "an-id", "orchestration", "anonymous", datetime.now(UTC)
    )
    shown = json.loads(to_json(represent(order, first_progress(order, []))))
    rebuilt = command_for(service, shown)
    assert rebuilt.path == CALLS[service].path
    assert rebuilt.body == json.loads(to_json(CALLS[service].command(order)))


def test_every_service_that_the_conductor_calls_can_be_repaired() -> None:
    assert set(SERVICES) == set(CALLS)
