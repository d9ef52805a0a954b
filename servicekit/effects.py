"""One transaction for some events: their effects by the service's own function, and their outcomes beside.

An event whose outcome is stored is not handled again. Refuses to try one that was refused often enough, until
somebody asks for a retry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from servicekit import outcomes
from servicekit.crashpoints import reach
from servicekit.heard import Heard, M
from servicekit.outcomes import SKIPPED, SUCCEEDED, Outcome, Refused


class Refusal(Exception):
    """A rule forbids it: trying again changes nothing. The message is the reason, and is told."""


@dataclass(frozen=True)
class Succeeded:
    """The effect is made, now or before; `result` is told."""

    result: Mapping[str, Any]


@dataclass(frozen=True)
class Skipped:
    """There was nothing to do, and why."""

    reason: str


Handle = Callable[[Connection, Sequence[M]], Sequence[Succeeded | Skipped | Refusal]]
"""Makes the effects of some events within one transaction; one answer each, in order. Idempotent."""


@dataclass(frozen=True)
class Done:
    """An event's outcome, stored in this transaction or in an earlier one."""

    outcome: Outcome
    is_new: bool


Result = Done | Refused | Refusal
"""Done; or put aside before, and not tried again; or refused."""


def take_effect(
    connection: Connection, group: Sequence[Heard[M]], *, handle: Handle[M], max_refusals: int
) -> list[Result]:
    """Handle events of different keys; one result each, in order."""
    keys = [each.key for each in group]
    known, refused = outcomes.stored(connection, keys), outcomes.refused(connection, keys)
    results: dict[str, Result] = {key: Done(outcome, False) for key, outcome in known.items()}
    todo: list[tuple[Heard[M], M]] = []
    for each in group:
        if each.key in known:
            continue
        before = refused.get(each.key)
        if before is not None and before.errors >= max_refusals and each.retry <= before.retry:
            results[each.key] = before
        elif each.data is None:
            results[each.key] = Refusal(each.problem)
        else:
            todo.append((each, each.data))
    answers = handle(connection, [data for _, data in todo]) if todo else []
    new: list[Outcome] = []
    for (each, _), answer in zip(todo, answers, strict=True):
        if isinstance(answer, Refusal):
            results[each.key] = answer
        else:
            new.append(_outcome(each, answer))
            results[each.key] = Done(new[-1], True)
    if new:
        outcomes.store(connection, new)
        outcomes.forget_refusals(connection, refused.keys() & {outcome.key for outcome in new})
        reach("participant.before-commit")
    return [results[key] for key in keys]


def _outcome(heard: Heard[Any], answer: Succeeded | Skipped) -> Outcome:
    tries = heard.message.tries
    if isinstance(answer, Succeeded):
        return Outcome(heard.key, SUCCEEDED, tries, result=answer.result)
    return Outcome(heard.key, SKIPPED, tries, reason=answer.reason)
