"""Messages as CloudEvents 1.0 in structured JSON (https://github.com/cloudevents/spec, v1.0.2).

A reader declares the data that it reads, and ignores the rest. Refuses subjects that could not be a token of
the broker's own subjects.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

D = TypeVar("D")

SPECVERSION = "1.0"
JSON = "application/json"
# An extension attribute's integers are signed, of 32 bits.
MAX_INTEGER = 2**31 - 1
RETRY = (
    "How often a retry was asked for; 0 if it is not told. An outcome tells that of the event which it "
    "answers; if it tells none, it counts as an answer to the newest."
)

Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What an event is about: one token."""


class CloudEvent(BaseModel, Generic[D]):
    """One event. `retry` is an extension: how often a person has asked for it to be tried afresh."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"]
    id: str = Field(min_length=1, max_length=256)
    source: str = Field(min_length=1, max_length=256)
    type: str = Field(min_length=1, max_length=256)
    subject: Subject
    time: AwareDatetime | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    retry: int | None = Field(None, ge=0, le=MAX_INTEGER, description=RETRY)
    data: D


def encode(
    *,
    id: str,
    source: str,
    type: str,
    subject: str,
    time: datetime,
    data: Mapping[str, Any] | BaseModel,
    **extensions: str | int | bool,
) -> bytes:
    """One event as the bytes to publish; `extensions` are attributes of its envelope."""
    event = {
        "specversion": SPECVERSION,
        "id": id,
        "source": source,
        "type": type,
        "subject": subject,
        "time": time,
        "datacontenttype": JSON,
        **extensions,
        "data": data,
    }
    return orjson.dumps(event, default=_plain, option=orjson.OPT_UTC_Z)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
