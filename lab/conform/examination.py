"""The examination: every check in every style that is served, one after the other, and what came of each.

It refuses to go on in a style in which no order is accepted: what follows would say nothing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from lab.conform.placing import placing, reading
from lab.conform.promise import read_before, reconciling, retrying
from lab.conform.refusing import limits, refusing
from lab.conform.repeating import repeating
from lab.conform.section import Check
from lab.conform.subject import ACCEPTED, FailedError, SkippedError, Subject
from lab.conform.waiting import waiting
from lab.errors import FAILED, LabError
from lab.order import STYLES
from lab.targets import Target

REACH_S = 3.0
PASS, FAIL, SKIPPED = "pass", "FAIL", "skipped"

IN_EACH_STYLE: Sequence[Check] = (
    *placing.checks,
    *reading.checks,
    *waiting.checks,
    *repeating.checks,
    *retrying.checks,
)
ONCE: Sequence[Check] = (*limits.checks, *refusing.checks)
AT_THE_END: Sequence[Check] = tuple(reconciling.checks)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check: `outcome` is pass, FAIL or skipped; `seen` says why.

    The style is empty where it makes no difference.
    """

    check: Check
    style: str
    outcome: str
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """All results, the styles that were examined, and how many orders were accepted."""

    url: str
    styles: Sequence[str]
    orders: int
    results: Sequence[Result]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(result.outcome == FAIL for result in self.results)


async def examine(
    client: httpx.AsyncClient,
    target: Target,
    styles: Sequence[str],
    told: Callable[[Result], None] = lambda result: None,
) -> Examination:
    """Examine in these styles, or, without any, in those that are served; `told` hears each result at once.

    Raises `LabError` where nothing answers, or the effects that the target names cannot be read.
    """
    subject = Subject(client, target, "")
    await _reach(subject)
    await read_before(subject)
    examining = _Examining(told)
    subject.served = styles or await examining.find_served(subject)
    for number, style in enumerate(subject.served or ("",)):
        in_style = replace(subject, style=style)  # the promises are shared
        accepted = await examining.all_in(in_style, IN_EACH_STYLE)
        if number == 0 and accepted:
            await examining.all_once(in_style, ONCE)
    if subject.promised:
        await examining.all_once(subject, AT_THE_END)
    return Examination(subject.base_url, subject.served, len(subject.promised), examining.results)


class _Examining:
    """Runs checks and keeps what came of them."""

    def __init__(self, told: Callable[[Result], None]) -> None:
        self.results: list[Result] = []
        self._told = told

    async def find_served(self, subject: Subject) -> list[str]:
        """The styles of which an order is accepted; of one that is refused, or not obeyed, it is said."""
        served = []
        for style in STYLES:
            if (why := await _not_served(subject, style)) is None:
                served.append(style)
            else:
                self._keep(Result(IN_EACH_STYLE[0], style, SKIPPED, f"it does not serve this style: {why}"))
        return served

    async def all_in(self, subject: Subject, checks: Sequence[Check]) -> bool:
        """Try all in the subject's style; whether an order is accepted in it."""
        first, *others = checks
        result = await _try(first, subject, subject.style)
        self._keep(result)
        for check in others:
            if result.outcome == FAIL:
                self._keep(Result(check, subject.style, SKIPPED, "no order is accepted"))
            else:
                self._keep(await _try(check, subject, subject.style))
        return result.outcome != FAIL

    async def all_once(self, subject: Subject, checks: Iterable[Check]) -> None:
        """Try all, whatever the style."""
        for check in checks:
            self._keep(await _try(check, subject, ""))

    def _keep(self, result: Result) -> None:
        self.results.append(result)
        self._told(result)


async def _not_served(subject: Subject, style: str) -> str | None:
    """Why the implementation does not serve the style; None if it does, or fails: the checks say how."""
    try:
        reply = await subject.place(style=style)
        told = reply.document().get("style") if reply.status in ACCEPTED else style
    except FailedError:
        return None
    if reply.status not in ACCEPTED:
        return str(reply) if reply.status < 500 else None
    return f"{reply.asked}: style is {told!r}" if told in STYLES and told != style else None


async def _reach(subject: Subject) -> None:
    origin = subject.target.origin
    try:
        async with asyncio.timeout(REACH_S):
            _, writer = await asyncio.open_connection(origin.host, origin.port)
        writer.close()
    except (OSError, TimeoutError) as error:
        raise LabError(f"nothing answers at {subject.base_url}: start it first", FAILED) from error


async def _try(check: Check, subject: Subject, style: str) -> Result:
    try:
        await check.trial(subject)
    except FailedError as error:
        return Result(check, style, FAIL, str(error))
    except SkippedError as error:
        return Result(check, style, SKIPPED, str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # whatever an answer's shape may be
        return Result(check, style, FAIL, f"the answer cannot be read: {error!r}")
    return Result(check, style, PASS)


def as_document(examination: Examination) -> dict[str, Any]:
    """The examination as `duet conform --json` prints it."""
    return {
        "url": examination.url,
        "styles": list(examination.styles),
        "passed": examination.passed,
        "orders": examination.orders,
        "checks": [
            {
                "name": result.check.name,
                "style": result.style or None,
                "requires": result.check.requires,
                "where": result.check.where,
                "result": result.outcome,
                "seen": result.seen or None,
            }
            for result in examination.results
        ],
    }
