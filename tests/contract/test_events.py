"""The contracts that travel by the broker, compared on both sides by golden files.

The producer owns the event, and adds to it at most; each consumer declares what it reads of it, and bears
older and newer ones alike. To change a contract is to change a file, and both sides have to agree to it.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, reject, settings
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

import email_svc.consumer
import email_svc.settings
import rewards_svc.consumer
import rewards_svc.settings
import warehouse_svc.consumer
import warehouse_svc.settings
from checkout.events import UnreadableOutcomeError, order_created, outcome_heard
from checkout.orchestration import CALLS
from checkout.orders import Outcome
from checkout.schemas import EXAMPLE_REQUEST
from servicekit.cloudevents import CloudEvent
from servicekit.db import Database
from servicekit.migrate import migrate
from servicekit.reports import MAX_EVENT_KEPT
from tests.api.apps import PACKAGES, ROOT
from tests.checkout.test_input import LARGEST
from tests.contract.test_golden import COMMANDS, GOLDEN, MADE_UP, ORDER_ID, REQUESTS, golden, order_of
from tests.support.hearing import GIVEN, Told, hear
from tests.support.hearing import order_created as changed

PARTICIPANTS = list(PACKAGES)
CREATED = "order_created.event.json"
READ: dict[str, type[BaseModel]] = {
    "email": CloudEvent[email_svc.consumer.OrderCreated],
    "warehouse": CloudEvent[warehouse_svc.consumer.OrderCreated],
    "rewards": CloudEvent[rewards_svc.consumer.OrderCreated],
}
PARTS: dict[str, Callable[..., Any]] = {
    "email": partial(email_svc.consumer.participant, wake=lambda: None),
    "warehouse": warehouse_svc.consumer.participant,
    "rewards": rewards_svc.consumer.participant,
}
SETTINGS: dict[str, Callable[..., Any]] = {
    "email": partial(email_svc.settings.Settings, smtp_url="null:"),
    "warehouse": partial(warehouse_svc.settings.Settings, dev_skus=True),
    "rewards": rewards_svc.settings.Settings,
}
# Each golden outcome, and the event that brings it about.
OUTCOMES = {
    "outcome.email.json": changed(ORDER_ID),
    "outcome.warehouse.json": changed(ORDER_ID),
    "outcome.rewards.json": changed(ORDER_ID),
    "outcome.rewards.skipped.json": changed(ORDER_ID, member=False),
    "outcome.email.failed.json": changed(ORDER_ID, currency=7),
    "outcome.warehouse.failed.json": changed(
        ORDER_ID, lines=[{"sku": "REFUSE-ME", "quantity": 1, "unit_price_minor": 1}]
    ),
    "outcome.rewards.failed.json": changed(ORDER_ID, retry=2, currency=7),
}
TO_EFFECT: dict[str, Callable[[Any], Any]] = {
    "email": methodcaller("to_confirmation"),
    "warehouse": methodcaller("to_preparation"),
    "rewards": methodcaller("to_credit"),
}
HEARD_AT = datetime(2026, 11, 22, tzinfo=UTC)
TIME = "2026-11-22T00:00:00Z"


async def told_by(name: str, folder: Path, *events: bytes) -> Told:
    """What a real participant publishes when it hears these, on a database of its own."""
    url = f"sqlite:///{folder / name}.db"
    migrate(ROOT / PACKAGES[name], url)
    told_settings = SETTINGS[name](**GIVEN)
    async with Database(url, timeout_s=5) as database:
        part = PARTS[name]
        return await hear(
            lambda bus: part(
                bus=bus, database=database, settings=told_settings, registry=CollectorRegistry()
            ),
            *events,
        )


def without_what_is_made_up(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what differs from run to run: its time, and ids, which stand by their names."""
    data = dict(event["data"])
    if data.get("result"):
        data["result"] = {
            key: key.upper() if key in MADE_UP else value for key, value in data["result"].items()
        }
    return {**event, "time": "TIME", "data": data}


def effect(name: str, event: bytes) -> Any:
    """What the service is to do about an event."""
    return TO_EFFECT[name](READ[name].model_validate_json(event).data)


def test_what_checkout_emits_is_the_golden_event() -> None:
    assert orjson.loads(order_created(order_of(EXAMPLE_REQUEST), 0)) == golden(CREATED)


def test_a_retry_is_the_same_event_but_for_the_count() -> None:
    assert orjson.loads(order_created(order_of(EXAMPLE_REQUEST), 3)) == {**golden(CREATED), "retry": 3}


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_what_a_service_hears_and_what_it_is_told_have_the_same_effect(name: str) -> None:
    told = COMMANDS[name].model_validate(golden(f"{name}.command.json"))
    assert effect(name, (GOLDEN / CREATED).read_bytes()) == TO_EFFECT[name](told)


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_a_consumer_bears_an_event_with_more_than_it_reads(name: str) -> None:
    newer = golden(CREATED) | {"newer": 1}
    data = newer["data"]
    for part in (data, data["customer"], data["ship_to"], *data["lines"]):
        part["newer"] = {"field": [1]}
    assert effect(name, orjson.dumps(newer)) == effect(name, (GOLDEN / CREATED).read_bytes())


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_a_consumer_bears_an_event_without_what_is_optional(name: str) -> None:
    older = golden(CREATED)
    for key in ("retry", "time", "datacontenttype"):
        del older[key]
    del older["data"]["accepted_at"]
    for key in ("line2", "region"):
        del older["data"]["ship_to"][key]
    assert effect(name, orjson.dumps(older)) == effect(name, (GOLDEN / CREATED).read_bytes())


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("email", {"order_id", "customer", "currency", "total_minor", "lines", "ship_to"}),
        ("warehouse", {"order_id", "lines", "ship_to"}),
        ("rewards", {"order_id", "customer", "currency", "total_minor"}),
    ],
)
def test_a_consumer_reads_only_what_it_needs(name: str, fields: set[str]) -> None:
    event = golden(CREATED)
    event["data"] = {key: value for key, value in event["data"].items() if key in fields}
    assert effect(name, orjson.dumps(event)) == effect(name, (GOLDEN / CREATED).read_bytes())
    for missing in fields:
        data = {key: value for key, value in event["data"].items() if key != missing}
        with pytest.raises(ValueError, match=missing):
            READ[name].model_validate({**event, "data": data})


@settings(max_examples=100, deadline=None)
@given(request=REQUESTS)
def test_every_consumer_reads_the_event_of_whatever_checkout_accepts(request: Any) -> None:
    try:
        event = order_created(order_of(request), 0)
    except ValueError:
        reject()
    for name in PARTICIPANTS:
        READ[name].model_validate_json(event)


def test_the_largest_order_is_an_event_that_the_broker_takes_and_a_dead_letter_holds() -> None:
    event = order_created(order_of(LARGEST), 0)
    assert len(event) <= MAX_EVENT_KEPT
    for name in PARTICIPANTS:
        READ[name].model_validate_json(event)


@pytest.mark.parametrize("file", OUTCOMES)
async def test_what_a_participant_tells_is_the_golden_outcome(file: str, tmp_path: Path) -> None:
    told = await told_by(file.split(".")[1], tmp_path, OUTCOMES[file])
    assert [without_what_is_made_up(event) for event in told.outcomes] == [golden(file)]


@pytest.mark.parametrize("file", OUTCOMES)
def test_checkout_reads_the_golden_outcome(file: str) -> None:
    name = file.split(".")[1]
    sent = golden(file)
    heard = outcome_heard(f"outcomes.{name}", orjson.dumps(sent | {"time": TIME}), HEARD_AT)
    assert (heard.order_id, heard.step, heard.at, heard.retry) == (ORDER_ID, name, HEARD_AT, sent["retry"])
    assert {
        "status": heard.status,
        "result": heard.result,
        "reason": heard.reason,
        "attempts": heard.attempts,
    } == sent["data"]


@pytest.mark.parametrize("file", OUTCOMES)
def test_checkout_bears_newer_and_older_outcomes(file: str) -> None:
    name, status = file.split(".")[1], golden(file)["data"]["status"]
    event = golden(file) | {"time": TIME, "newer": 1}
    newer = {**event, "data": event["data"] | {"newer": [1]}}
    older = {**event, "data": {"status": status}}
    del older["retry"]
    for data, retry in ((newer, event["retry"]), (older, None)):
        heard = outcome_heard(f"outcomes.{name}", orjson.dumps(data), HEARD_AT)
        assert (heard.status, heard.retry) == (status, retry)
    with pytest.raises(UnreadableOutcomeError):
        outcome_heard(f"outcomes.{name}", orjson.dumps({**event, "data": {}}), HEARD_AT)


def test_an_outcome_is_bounded_and_its_longest_reason_is_within_the_bound() -> None:
    event = golden("outcome.warehouse.failed.json") | {"time": TIME}
    reason = "\U0001f9f8" * 2_000

    def heard(**told: object) -> Outcome:
        # As one writes it who escapes all that is not ASCII.
        message = json.dumps({**event, "data": {**event["data"], **told}}).encode()
        return outcome_heard("outcomes.warehouse", message, HEARD_AT)

    assert heard(reason=reason).reason == reason
    with pytest.raises(UnreadableOutcomeError, match="32768"):
        heard(result={"x": "x" * 32_768})


@pytest.mark.parametrize("name", PARTICIPANTS)
def test_a_steps_result_is_the_same_in_both_styles(name: str) -> None:
    heard = golden(f"outcome.{name}.json")["data"]["result"]
    told = CALLS[name].reply.model_validate(golden(f"{name}.reply.json")).model_dump()
    assert heard == told


@pytest.mark.parametrize("name", PARTICIPANTS)
async def test_what_a_participant_gives_up_is_the_golden_dead_letter(name: str, tmp_path: Path) -> None:
    event = OUTCOMES[f"outcome.{name}.failed.json"]
    [letter] = (await told_by(name, tmp_path, event)).dead_letters
    assert letter["data"]["event"] == event.decode()
    letter["data"]["event"] = "EVENT"
    assert without_what_is_made_up(letter) == golden(f"dead_letter.{name}.json")
