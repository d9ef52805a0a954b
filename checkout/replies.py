"""What a service's reply means to the conductor: decided here, without I/O.

A refusal is the service's own well-formed "no"; trouble is whatever may pass by itself; a misrouted call
reached something that is not the service, or not its route. Replies are data to distrust.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_SLUG = 300
RETRIED_STATUSES = frozenset({408, 425, 429})
REFUSAL_STATUSES = frozenset({400, 409, 422})


class CallError(Exception):
    """A call that did not succeed; `slug` says why in one word for the step's `last_error`."""

    def __init__(self, slug: str, retry_after_s: float | None = None) -> None:
        super().__init__(slug)
        self.slug = slug
        self.retry_after_s = retry_after_s


class TroubleError(CallError):
    """May pass by itself: called again within the pass."""


class MisroutedError(CallError):
    """Reached something else than the service's route: called again by a later pass only."""


class NoSlotError(CallError):
    """Too many calls to this service are in flight: left to a later pass."""


class RefusedError(CallError):
    """The service said no, by a problem type of its own."""


class Reply(BaseModel):
    """The part of a service's reply that the conductor uses; every reply names the order that it is for."""

    model_config = ConfigDict(extra="ignore", strict=True)

    order_id: str = Field(exclude=True)


def judge(service: str, status: int, headers: Mapping[str, str], body: bytes, reply: type[Reply]) -> Reply:
    """The reply of a call that succeeded. Raises RefusedError, MisroutedError or TroubleError."""
    if status in (200, 201):
        return _parse(headers, body, reply)
    if status in RETRIED_STATUSES or status >= 500:
        raise TroubleError(f"status-{status}", _retry_after_s(headers))
    if status in REFUSAL_STATUSES and (slug := _own_problem(service, headers, body)):
        raise RefusedError(slug)
    if 200 <= status < 300:
        raise TroubleError(f"unexpected-status-{status}")
    raise MisroutedError(f"misrouted-{status}")


def _parse(headers: Mapping[str, str], body: bytes, reply: type[Reply]) -> Reply:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise TroubleError("reply-wrong-content-type")
    try:
        document = orjson.loads(body)
    except ValueError:
        raise TroubleError("reply-malformed") from None
    try:
        return reply.model_validate(document)
    except ValidationError:
        raise TroubleError("reply-wrong-shape") from None


def _own_problem(service: str, headers: Mapping[str, str], body: bytes) -> str | None:
    """The slug of the service's own problem type: `…/problems/SERVICE/SLUG`; None for anything else."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/problem+json":
        return None
    try:
        document = orjson.loads(body)
    except ValueError:
        return None
    kind = document.get("type") if isinstance(document, dict) else None
    if not isinstance(kind, str):
        return None
    _, found, slug = kind.rpartition(f"/problems/{service}/")
    return slug[:MAX_SLUG] if found and slug.replace("-", "").isalnum() else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from either form of Retry-After (RFC 9110, 10.2.3); None if there is none to read."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 7:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        return max(0.0, (at - datetime.now(at.tzinfo or UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
