"""`duet timeline`: one order's story, the same for both styles, by checkout's words and the services'."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab import timeline
from lab.ledger import Effect, Verdict
from lab.story import Story, Witness, as_document, tell
from tests.lab.fake_system import FakeSystem, make_fake, run_command

BEGAN = datetime(2026, 11, 22, 9, tzinfo=UTC)


def at(ms: float) -> str:
    """A time so many milliseconds after acceptance, as checkout writes it."""
    return (BEGAN + timedelta(milliseconds=ms)).isoformat().replace("+00:00", "Z")


def order(status: str, completed_ms: float | None = None, **steps: dict[str, Any]) -> dict[str, Any]:
    return {
        "order_id": "order-1",
        "style": "orchestration",
        "status": status,
        "customer": {"name": "Ada", "email": "ada@example.com", "rewards_member": True},
        "currency": "GBP",
        "total_minor": 3998,
        "accepted_at": at(0),
        "completed_at": None if completed_ms is None else at(completed_ms),
        "steps": steps,
    }


def done(ms: float, attempts: int = 1, **more: Any) -> dict[str, Any]:
    return {"status": "succeeded", "attempts": attempts, "finished_at": at(ms), **more}


def acted(*times_ms: float, record: dict[str, Any] | None = None) -> Witness:
    return Witness([Effect("order-1", BEGAN + timedelta(milliseconds=ms)) for ms in times_ms], record)


def told(order_: dict[str, Any], after_s: float = 20.0, **witnesses: Witness) -> Story:
    return tell(order_, witnesses, BEGAN + timedelta(seconds=after_s))


def lines(story: Story) -> list[tuple[float, str, str, int | None]]:
    return [(story.offset_ms(event.at), event.who, event.what, event.tries) for event in story.events]


def test_what_was_done_and_what_checkout_heard_of_it_come_in_order_of_time() -> None:
    completed = order(
        "completed",
        48,
        warehouse=done(48, attempts=3, result={"state": "preparing"}),
        email=done(11, result={"delivery": "queued"}),
        rewards=done(12, result={"balance_id": "b-1", "points": 39}),
    )
    sent = {"delivery": "sent", "delivered_at": at(90), "attempts": 2}
    story = told(completed, email=acted(9, record=sent), warehouse=acted(40), rewards=acted(10))
    assert lines(story) == [
        (0, "checkout", "accepted the order: orchestration, 39.98 GBP", None),
        (9, "email", "recorded the confirmation", None),
        (10, "rewards", "entered the points", None),
        (11, "checkout", "knows email as succeeded, delivery queued", 1),
        (12, "checkout", "knows rewards as succeeded, points 39", 1),
        (40, "warehouse", "stored the shipment", None),
        (48, "checkout", "knows warehouse as succeeded, state preparing", 3),
        (48, "checkout", "completed the order", None),
        (90, "email", "delivered the confirmation", 2),
    ]
    assert set(story.verdicts.values()) == {Verdict.EXACTLY_ONCE}
    assert (story.line, story.waits_for) == ("completed after 48 ms", [])


def test_an_order_in_progress_names_whom_it_waits_for_why_and_how_long() -> None:
    away = {"status": "pending", "attempts": 4, "last_error": "unreachable", "since": at(7700)}
    story = told(order("in_progress", email=done(5), warehouse=away), email=acted(4), warehouse=acted())
    assert story.line == "waits for: warehouse (unreachable for 12.3 s, 4 tries)"
    assert (7700, "checkout", "misses warehouse: unreachable", 4) in lines(story)
    assert story.verdicts["warehouse"] is Verdict.UNFINISHED


def test_a_part_that_was_done_and_of_which_checkout_has_not_heard_is_told() -> None:
    silent = {"status": "pending", "attempts": 0, "last_error": "no-outcome", "since": at(10)}
    story = told(order("in_progress", warehouse=silent), warehouse=acted(500))
    unheard = "did its part 19.5 s ago, of which checkout has not heard"
    assert story.line == f"waits for: warehouse (no-outcome for 20.0 s, {unheard})"


def test_a_service_that_cannot_be_asked_gets_no_verdict() -> None:
    story = told(order("completed", 48, email=done(11)), email=Witness(trouble="cannot connect"))
    assert story.verdicts == {"email": None}
    shown = as_document(story)["services"]["email"]
    assert (shown["answers"], shown["verdict"], shown["trouble"]) == (False, None, "cannot connect")


@pytest.mark.parametrize(
    ("witness", "verdict"),
    [
        (acted(), Verdict.MISSING),
        (acted(5, 6), Verdict.DUPLICATE),
        (acted(500), Verdict.LATE),
    ],
)
def test_the_verdict_is_the_audits(witness: Witness, verdict: Verdict) -> None:
    assert told(order("completed", 48, email=done(11)), email=witness).verdicts["email"] is verdict


def test_who_has_not_begun_and_what_a_later_joiner_does_is_waited_for_rightly() -> None:
    young = {"status": "pending", "attempts": 0}
    assert told(order("in_progress", email=young)).line == "waits for: email (no trouble known)"
    assert "somebody to take part" in told(order("in_progress")).line
    joiner = {**young, "awaited": False}
    assert told(order("in_progress", email=young, fraud=joiner)).line == "waits for: email (no trouble known)"


def test_a_refusal_waits_for_a_person_and_what_was_given_up_for_nobody() -> None:
    refused = {"status": "failed", "attempts": 2, "reason": "sku-refused", "finished_at": at(9)}
    line = told(order("needs_attention", warehouse=refused), warehouse=acted()).line
    assert line.startswith(
        "waits for a person: warehouse failed (sku-refused) at try 2: duet stuck retry order-1"
    )
    line = told(order("needs_attention", warehouse={**refused, "reason": "abandoned"})).line
    assert line == "waits for nobody: an operator gave up warehouse"


def test_a_service_of_another_team_is_told_of_in_general_words() -> None:
    story = told(order("completed", 48, fraud=done(11)), fraud=acted(5))
    assert (5, "fraud", "did its part", None) in lines(story)


@pytest.fixture
def fake(tmp_path: Path) -> FakeSystem:
    return make_fake(tmp_path)


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
def test_it_is_asked_of_checkout_and_of_every_service(fake: FakeSystem, style: str) -> None:
    fake.add(style=style)
    order_id = fake.add(style=style)
    result = run_command(timeline, fake, "timeline", order_id, "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["style"], shown["line"]) == (style, "completed after 2000 ms")
    assert [service["verdict"] for service in shown["services"].values()] == ["exactly_once"] * 3
    assert [event["offset_ms"] for event in shown["events"] if event["who"] == "rewards"] == [1000.0]
    assert shown["services"]["email"]["record"]["delivery"] == "sent"
    assert "ada@example.com" not in result.output
    assert {event["who"] for event in shown["events"]} == {"checkout", "email", "warehouse", "rewards"}


def test_a_person_sees_a_table_and_one_line_below(fake: FakeSystem) -> None:
    result = run_command(timeline, fake, "timeline", fake.add())
    assert result.exit_code == 0, result.output
    assert "1000.0  warehouse  stored the shipment" in result.output
    assert "warehouse: exactly once" in result.output
    assert result.output.rstrip().endswith("completed after 2000 ms")


def test_a_service_that_is_down_is_said_to_be_so(fake: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "SERVICE_PATIENCE_S", 0.0)
    order_id = fake.add()

    def away(request: httpx.Request) -> None:
        if request.url.port == 8002:
            raise httpx.ConnectError("refused", request=request)

    fake.before = away
    result = run_command(timeline, fake, "timeline", order_id)
    assert result.exit_code == 0, result.output
    assert "warehouse: cannot be asked: " in result.output
    assert "email: exactly once" in result.output


def test_an_unknown_order_is_an_error_in_one_line(fake: FakeSystem) -> None:
    result = run_command(timeline, fake, "timeline", "order-9999")
    assert (result.exit_code, result.stderr) == (1, "duet: checkout knows no order order-9999\n")
