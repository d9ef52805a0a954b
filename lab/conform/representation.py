"""Whether a document is an order's representation: its fields, and that they fit each other. Pure.

It refuses nothing that is more than required: a newer implementation may tell more.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from lab.ledger import COMPLETED, IN_PROGRESS, NEEDS_ATTENTION, STATUSES

Json = Mapping[str, Any]

STEP_STATUSES = ("pending", "succeeded", "skipped", "failed")
AS_SENT = ("customer", "currency", "lines", "ship_to")


def faults(document: Json, sent: Json) -> list[str]:
    """What is wrong with a representation of the order that was sent, each in a few words."""
    return [*_missing(document), *_unlike(document, sent), *_times(document), *_steps(document)]


def status_faults(document: Json) -> list[str]:
    """Where the order's status does not follow from its steps."""
    status, steps = document.get("status"), document.get("steps")
    if not isinstance(steps, dict):
        return ["steps is no object"]
    known = [step for step in steps.values() if isinstance(step, dict) and step.get("awaited", True)]
    told = {step.get("status") for step in known}
    due = IN_PROGRESS if "pending" in told or not told else NEEDS_ATTENTION if "failed" in told else COMPLETED
    return [] if status == due else [f"status is {status!r}, while the steps mean {due!r}"]


def without_nulls(value: Any) -> Any:
    """The same without fields whose value is null, which mean the same as none."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _missing(document: Json) -> Iterable[str]:
    for name in ("order_id", "style"):
        if not (isinstance(document.get(name), str) and document[name]):
            yield f"{name} is {document.get(name)!r}, not a text"
    if document.get("status") not in STATUSES:
        yield f"status is {document.get('status')!r}, not one of {', '.join(STATUSES)}"
    if not isinstance(document.get("steps"), dict):
        yield f"steps is {document.get('steps')!r}, not an object"


def _unlike(document: Json, sent: Json) -> Iterable[str]:
    due = {name: without_nulls(sent[name]) for name in AS_SENT}
    due["ship_to"] = {"name": sent["customer"]["name"], **due["ship_to"]}
    for name, expected in due.items():
        if without_nulls(document.get(name)) != expected:
            yield f"{name} is {document.get(name)!r}, not as sent"
    total = sum(line["quantity"] * line["unit_price_minor"] for line in sent["lines"])
    if document.get("total_minor") != total:
        yield f"total_minor is {document.get('total_minor')!r}, not {total}"


def _times(document: Json) -> Iterable[str]:
    yield from _no_time("accepted_at", document.get("accepted_at"))
    completed = document.get("status") == COMPLETED
    if completed:
        yield from _no_time("completed_at", document.get("completed_at"))
    elif document.get("completed_at") is not None:
        yield f"completed_at is {document['completed_at']!r}, while the order is not completed"


def _steps(document: Json) -> Iterable[str]:
    steps = document.get("steps")
    for name, step in steps.items() if isinstance(steps, dict) else ():
        if not isinstance(step, dict) or step.get("status") not in STEP_STATUSES:
            yield f"steps.{name} has no status of {', '.join(STEP_STATUSES)}"
            continue
        attempts = step.get("attempts")
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 0:
            yield f"steps.{name}.attempts is {attempts!r}, not a count"
        if step["status"] in ("skipped", "failed") and not step.get("reason"):
            yield f"steps.{name} is {step['status']} without a reason"
        if step["status"] == "pending" and step.get("last_error") and not step.get("since"):
            yield f"steps.{name} has a last_error without since"
        for key in ("since", "finished_at"):
            if step.get(key) is not None:
                yield from _no_time(f"steps.{name}.{key}", step[key])


def _no_time(name: str, value: Any) -> Iterable[str]:
    """A word if it is no time of RFC 3339 in UTC."""
    try:
        if datetime.fromisoformat(value).utcoffset() == timedelta(0):
            return
    except (TypeError, ValueError):
        pass
    yield f"{name} is {value!r}, not a time in UTC by RFC 3339"
