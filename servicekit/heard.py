"""What a message says: an event to handle, or why it cannot be read, told without what is in it.

Refuses nothing: of an event whose data cannot be read, its subject and its `retry` may be readable still.
"""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servicekit.cloudevents import MAX_INTEGER, CloudEvent, Subject
from servicekit.pull import Message

M = TypeVar("M", bound=BaseModel)

MAX_REASON = 500
MAX_PROBLEMS = 3


@dataclass(frozen=True)
class Heard(Generic[M]):
    """One message. `key` is the event's subject; empty if it is not `named`: if even that is unreadable."""

    message: Message
    key: str
    named: bool
    retry: int = 0
    data: M | None = None
    problem: str = ""

    @property
    def is_first_try(self) -> bool:
        """Whether it is as good as any: a message that came before may have killed who worked on it."""
        return self.named and self.message.tries == 1


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="ignore")

    subject: Subject
    retry: int | None = Field(None, ge=0, le=MAX_INTEGER)


def read(message: Message, event: type[CloudEvent[M]]) -> Heard[M]:
    """Read a message as this kind of event."""
    try:
        told = event.model_validate_json(message.data)
    except ValidationError as exc:
        problem = _problem(exc)
    else:
        return Heard(message, told.subject, True, told.retry or 0, told.data)
    try:
        envelope = _Envelope.model_validate_json(message.data)
    except ValidationError:
        return Heard(message, "", False, problem=problem)
    return Heard(message, envelope.subject, True, envelope.retry or 0, problem=problem)


def tidy(reason: str) -> str:
    """A reason that any database stores and any log shows."""
    return reason.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")[:MAX_REASON]


def _problem(exc: ValidationError) -> str:
    errors: list[Any] = exc.errors(include_url=False, include_context=False, include_input=False)
    problems = [f"#/{'/'.join(map(str, error['loc']))}: {error['type']}" for error in errors[:MAX_PROBLEMS]]
    return tidy("the event cannot be read: " + ", ".join(problems))
