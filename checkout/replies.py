"""What a service's reply means to the conductor: decided here, without I/O.

A refusal is the service's own well-formed "no"; trouble is whatever may pass by itself; a misrouted call
reached something that is not the service, or not its route. Replies are data to distrust.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_SLUG = 300
SUCCESS_STATUSES = frozenset({200, 201})
BATCH_STATUS = 200
MIN_STATUS, MAX_STATUS = 100, 599
NO_ROUTE_STATUSES = frozenset({404, 405})
TOO_LARGE = 413
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


class NoBatchRouteError(CallError):
    """The service takes commands one by one only."""


def judge(service: str, status: int, headers: Mapping[str, str], body: bytes, reply: type[Reply]) -> Reply:
    """The reply of a call that succeeded. Raises RefusedError, MisroutedError or TroubleError."""
    if status in SUCCESS_STATUSES:
        return _valid(_document(headers, body), reply)
    problem = _problem_in(headers, body) if status in REFUSAL_STATUSES else None
    raise _failure(service, status, problem, _retry_after_s(headers))


def judge_batch(status: int, headers: Mapping[str, str], body: bytes, count: int) -> list[Any]:
    """The replies to `count` commands, for `judge_item`, in order; nothing is known of any of them yet.

    Raises NoBatchRouteError, MisroutedError or TroubleError.
    """
    if status in NO_ROUTE_STATUSES:
        raise NoBatchRouteError(f"status-{status}")
    if status in REFUSAL_STATUSES or status == TOO_LARGE:  # no command's fault: each is told alone then
        raise TroubleError(f"batch-status-{status}")
    if status != BATCH_STATUS:
        raise _failure("", status, None, _retry_after_s(headers))
    document = _document(headers, body)
    items = document.get("results") if isinstance(document, dict) else None
    if not isinstance(items, list) or len(items) != count:
        raise TroubleError("reply-wrong-shape")
    return items


def judge_item(service: str, item: Any, reply: type[Reply]) -> Reply:
    """The reply to one command of a batch, as `judge` has it. Raises what that raises."""
    status = item.get("status") if isinstance(item, dict) else None
    if type(status) is not int or not MIN_STATUS <= status <= MAX_STATUS:
        raise TroubleError("reply-wrong-shape")
    if status in SUCCESS_STATUSES:
        return _valid(item.get("body"), reply)
    raise _failure(service, status, item.get("problem"), None)


def _failure(service: str, status: int, problem: Any, retry_after_s: float | None) -> CallError:
    if status in RETRIED_STATUSES or status >= 500:
        return TroubleError(f"status-{status}", retry_after_s)
    if status in REFUSAL_STATUSES and (slug := _own_slug(service, problem)):
        return RefusedError(slug)
    if 200 <= status < 300:
        return TroubleError(f"unexpected-status-{status}")
    return MisroutedError(f"misrouted-{status}")


def _document(headers: Mapping[str, str], body: bytes) -> Any:
    if _media_type(headers) != "application/json":
        raise TroubleError("reply-wrong-content-type")
    try:
        return orjson.loads(body)
    except ValueError:
        raise TroubleError("reply-malformed") from None


def _valid(document: Any, reply: type[Reply]) -> Reply:
    try:
        return reply.model_validate(document)
    except ValidationError:
        raise TroubleError("reply-wrong-shape") from None


def _problem_in(headers: Mapping[str, str], body: bytes) -> Any:
    if _media_type(headers) != "application/problem+json":
        return None
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _own_slug(service: str, problem: Any) -> str | None:
    """The slug of the service's own problem type: `…/problems/SERVICE/SLUG`; None for anything else."""
    kind = problem.get("type") if isinstance(problem, dict) else None
    if not isinstance(kind, str):
        return None
    _, found, slug = kind.rpartition(f"/problems/{service}/")
    return slug[:MAX_SLUG] if found and slug.replace("-", "").isalnum() else None


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


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
