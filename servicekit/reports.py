"""What a participant tells: its outcomes, and the events that it has put aside.

The broker lets each participant publish these on its own subjects only. Refuses to tell what was in an event,
but to its operator, in the dead letter.
"""

from datetime import UTC, datetime

from servicekit import cloudevents
from servicekit.bus import Message
from servicekit.outcomes import FAILED, Outcome, Refused

OUTCOME_REPORTED, DEAD_LETTERED = "duet.OutcomeReported", "duet.DeadLettered"
# JSON escapes may make it six times as long; the broker takes messages of up to 1 MiB.
MAX_EVENT_KEPT = 131_072


def outcome_channel(participant: str) -> str:
    """Where a participant's outcomes go."""
    return f"outcomes.{participant}"


def outcome_reported(participant: str, outcome: Outcome, retry: int) -> bytes:
    """One outcome, the same each time it is told, but for the time and the `retry` of the event answered.

    A failure is of one retry only: that of another is another.
    """
    status = f"{FAILED}:{retry}" if outcome.status == FAILED else outcome.status
    return cloudevents.encode(
        id=f"{participant}:{outcome.key}:{status}",
        source=f"/{participant}",
        type=OUTCOME_REPORTED,
        subject=outcome.key,
        time=datetime.now(UTC),
        data={
            "status": outcome.status,
            "result": outcome.result,
            "reason": outcome.reason,
            "attempts": outcome.attempts,
        },
        retry=retry,
    )


def dead_letter_channel(participant: str, key: str) -> str:
    """Where a dead letter goes: a later one of the same event replaces it."""
    return f"dead_letters.{participant}.{key}"


def dead_letter(participant: str, refused: Refused, message: Message, *, named: bool) -> bytes:
    """An event that was put aside, with all that it said; `named`: its key is its subject."""
    return cloudevents.encode(
        id=f"{participant}:{refused.key}:dead",
        source=f"/{participant}",
        type=DEAD_LETTERED,
        subject=refused.key,
        time=datetime.now(UTC),
        data={
            "participant": participant,
            "key": refused.key,
            "readable": named,
            "reason": refused.reason,
            "errors": refused.errors,
            "sequence": message.sequence,
            "event": message.data.decode("utf-8", "replace")[:MAX_EVENT_KEPT],
        },
    )
