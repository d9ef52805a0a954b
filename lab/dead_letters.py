"""The stream of dead letters as the broker's operator reads and clears it.

Who wrote a letter is told by its subject, which the broker's credentials pin. It refuses to drop a letter
that it cannot read itself: that one is shown as it is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.errors import FAILED, LabError
from lab.text import plain

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import RawStreamMsg

STREAM = "DEAD_LETTERS"
SUBJECTS = "dead_letters.>"
MOST_LETTERS = 100_000


@dataclass(frozen=True)
class Letter:
    """One dead letter; `key` is the order's id where the event is `readable`, and `errors` counts its tries.

    `sequence` is the letter's own in its stream; `at` is when the broker stored it, RFC 3339.
    """

    sequence: int
    participant: str
    key: str
    at: str
    readable: bool
    reason: str
    errors: int
    event: str

    def as_document(self, *, with_event: bool = False) -> dict[str, Any]:
        """The letter as `--json` prints it; the event holds personal data and comes only if asked for."""
        document = {
            "participant": self.participant,
            "key": self.key,
            "at": self.at,
            "readable": self.readable,
            "reason": self.reason,
            "errors": self.errors,
        }
        return {**document, "event": self.event} if with_event else document

    def event_lines(self) -> list[str]:
        """The event, line by line, indented where it is JSON."""
        try:
            text = json.dumps(json.loads(self.event), indent=2, ensure_ascii=False)
        except ValueError:
            text = self.event
        return [plain(line) for line in text.split("\n")]


async def read_letters(
    jetstream: "JetStreamContext", limit: int = MOST_LETTERS, *, after: int = 0
) -> list[Letter]:
    """The dead letters behind the sequence `after`, oldest first, at most `limit`.

    Raises `LabError` where the broker gives no answer.
    """
    from nats.js.errors import NotFoundError

    letters: list[Letter] = []
    position = after + 1
    while len(letters) < limit:
        try:
            with _answering():
                message = await jetstream.get_msg(STREAM, seq=position, subject=SUBJECTS, next=True)
        except NotFoundError:
            break
        letters.append(_letter(message))
        position = letters[-1].sequence + 1
    return letters


async def clear(jetstream: "JetStreamContext", letter: Letter) -> None:
    """Delete this letter, not one that came under its subject since; one that is gone already is no error."""
    from nats.js.errors import APIError

    try:
        with _answering():
            await jetstream.delete_msg(STREAM, letter.sequence)
    except APIError:
        pass  # gone: by its successor, by age, or by another operator


@contextmanager
def _answering() -> Iterator[None]:
    """Let through what JetStream answered; make a `LabError` of having no answer."""
    import nats.errors
    from nats.js.errors import APIError, ServiceUnavailableError

    try:
        yield
    except (nats.errors.Error, TimeoutError) as error:
        if isinstance(error, APIError) and not isinstance(error, ServiceUnavailableError):
            raise
        raise LabError(f"the broker gave no answer about {STREAM}: {error}", FAILED) from error


def _letter(message: "RawStreamMsg") -> Letter:
    _, participant, key = (message.subject or "..").split(".", 2)
    raw = (message.data or b"").decode(errors="replace")
    told = _data(raw)
    return Letter(
        sequence=message.seq or 0,
        participant=participant,
        key=key,
        at=_in_utc(message.time),
        readable=told.get("readable") is True,
        reason=str(told.get("reason", "the dead letter itself cannot be read")),
        errors=told["errors"] if isinstance(told.get("errors"), int) else 0,
        event=str(told.get("event", raw)),
    )


def _in_utc(at: datetime | None) -> str:
    return "at an unknown time" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _data(raw: str) -> dict[str, Any]:
    try:
        data = json.loads(raw)["data"]
    except (ValueError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}
