"""CloudEvents 1.0: what is written is read again, by readers that know more fields or fewer."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, ValidationError

from servicekit.cloudevents import CloudEvent, encode

WHEN = datetime(2026, 11, 23, 12, 0, 0, 125_000, UTC)


class Tea(BaseModel):
    """What a reader reads."""

    name: str
    sugar: int = 0


def written(**given: Any) -> bytes:
    event = {
        "id": "cup-1:made",
        "source": "/kettle",
        "type": "tea.Made",
        "subject": "cup-1",
        "time": WHEN,
        "data": {"name": "green"},
    }
    return encode(**{**event, **given})


def test_an_event_is_written_in_structured_mode() -> None:
    assert orjson.loads(written(retry=2)) == {
        "specversion": "1.0",
        "id": "cup-1:made",
        "source": "/kettle",
        "type": "tea.Made",
        "subject": "cup-1",
        "time": "2026-11-23T12:00:00.125000Z",
        "datacontenttype": "application/json",
        "retry": 2,
        "data": {"name": "green"},
    }


def test_what_is_written_is_read() -> None:
    read = CloudEvent[Tea].model_validate_json(written(data=Tea(name="black", sugar=2), retry=3))
    assert (read.subject, read.time, read.retry, read.data) == (
        "cup-1",
        WHEN,
        3,
        Tea(name="black", sugar=2),
    )


def test_a_reader_ignores_what_it_does_not_know() -> None:
    event = orjson.loads(written(data={"name": "green", "milk": True}))
    event |= {"traceparent": "00-0", "dataschema": "https://tea.test/v2"}
    assert CloudEvent[Tea].model_validate_json(orjson.dumps(event)).data == Tea(name="green")


def test_only_what_the_specification_requires_and_the_subject_is_needed() -> None:
    event = orjson.loads(written())
    del event["time"], event["datacontenttype"]
    read = CloudEvent[Tea].model_validate_json(orjson.dumps(event))
    assert (read.time, read.retry) == (None, None)


@pytest.mark.parametrize("subject", ["", "a.b", "a b", "*", ">", "a\n", "é", "x" * 65, None, 7])
def test_a_subject_that_is_no_token_is_not_read(subject: object) -> None:
    with pytest.raises(ValidationError):
        CloudEvent[Tea].model_validate_json(written(subject=subject))


@pytest.mark.parametrize(
    "change",
    [{"specversion": "0.3"}, {"id": ""}, {"retry": -1}, {"retry": 2**31}, {"time": "yesterday"}, {"data": 1}],
)
def test_an_event_that_breaks_the_specification_is_not_read(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CloudEvent[Tea].model_validate_json(orjson.dumps({**orjson.loads(written()), **change}))
