"""Delivers recorded confirmations in the background, a bounded number at once, for as long as it takes.

What is due is claimed under a lease, attempted, and settled: sent, bounced (refused for good, or too old),
or due again later. A message may go out twice (SMTP cannot deduplicate), always under one Message-ID.
Refuses to attempt what its lease might not outlast: somebody else may have it by then.
"""

import asyncio
import contextlib
import logging
import random
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from email_svc.addresses import Address
from email_svc.confirmations import (
    BOUNCED,
    QUEUED,
    SENT,
    Claim,
    Settlement,
    claim_due,
    make_all_due,
    settle,
)
from email_svc.messages import compose, one_line
from email_svc.smtp import Envelope, RefusedError, UnreachableError
from servicekit.batching import Batcher
from servicekit.crashpoints import reach
from servicekit.db import Database, StorageUnavailableError

log = logging.getLogger("email_svc.delivery")

FIRST_RETRY_S = 5.0
LAST_RETRY_S = 600.0
# Retries are spread over this much more, so that a day's backlog does not come back as one wave.
JITTER = 0.25
MAX_REASON = 300


@dataclass(frozen=True)
class Policy:
    """How mail is delivered. All times are in seconds."""

    sender: Address
    workers: int = 4
    claim_size: int = 8
    lease_s: float = 60.0
    attempt_s: float = 20.0
    poll_s: float = 1.0
    give_up_s: float = 5 * 86_400.0
    stop_s: float = 3.0


def conclude(claim: Claim, error: Exception | None, give_up_s: float, jitter: float) -> Settlement:
    """What an attempt's end means for its confirmation; `jitter` is between 0 and 1.

    Only a refusal and old age are final: whatever else went wrong may pass.
    """
    order_id, attempt = claim.confirmation.order_id, claim.attempt
    if error is None:
        return Settlement(order_id, attempt, SENT)
    reason = one_line(str(error))[:MAX_REASON]
    if isinstance(error, RefusedError):
        return Settlement(order_id, attempt, BOUNCED, reason)
    if claim.age_s >= give_up_s:
        return Settlement(
            order_id, attempt, BOUNCED, f"given up after {attempt} attempts; the last: {reason}"
        )
    return Settlement(order_id, attempt, QUEUED, reason, retry_after_s(attempt, jitter))


def retry_after_s(attempt: int, jitter: float) -> float:
    """The wait after an attempt that did not get through: 5 s, doubled each time, up to 10 min."""
    # The exponent is bounded, since in five days there may be hundreds of attempts.
    backoff_s = min(FIRST_RETRY_S * 2.0 ** min(attempt - 1, 10), LAST_RETRY_S / (1 + JITTER))
    return backoff_s * (1 + JITTER * jitter)


class Deliverer:
    """Workers that deliver what is due. Use it as a context; `wake` it when something is recorded."""

    def __init__(
        self,
        database: Database,
        send: Callable[[Envelope], Awaitable[None]],
        policy: Policy,
        *,
        observe: Callable[[str], None] = lambda delivery: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._send = send
        self._policy = policy
        self._observe = observe
        self._clock = clock
        self._jitter = jitter
        self._settlements: Batcher[Settlement, bool] = Batcher(
            lambda items: database.batch(settle, items), max_items=policy.workers, max_queue=policy.workers
        )
        self._taking = asyncio.Lock()
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._claimed: deque[tuple[Claim, float]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        if self._database.dialect == "sqlite":  # no other process serves it: every lease is a dead one's
            await self._database.write(make_all_due)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._policy.workers)]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Finish the attempts under way, for a bounded time, and give back what is claimed beyond them."""
        self._closing.set()
        self._news.set()
        _, late = await asyncio.wait(self._tasks, timeout=self._policy.stop_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._settlements.aclose()
        back = [
            Settlement(claim.confirmation.order_id, claim.attempt, QUEUED, retry_in_s=0.0)
            for claim, _ in self._claimed
        ]
        if back:
            with contextlib.suppress(StorageUnavailableError):  # then they fall due with their lease
                await self._database.write(lambda connection: settle(connection, back))

    def wake(self) -> None:
        """Something is due now: look at once."""
        self._news.set()

    async def _work(self) -> None:
        while not self._closing.is_set():
            try:
                claim = await self._take()
                passable = claim is None or await self._deliver(claim)
            except StorageUnavailableError as exc:
                log.warning("delivery waits for the database", extra={"error": str(exc)})
                passable = False
            except Exception as exc:  # a worker that died would be missed by nobody
                log.error("delivery failed", extra=_without_personal_data(exc))
                passable = False
            if not passable:
                await self._wait(self._closing)

    async def _take(self) -> Claim | None:
        async with self._taking:
            while not self._closing.is_set():
                while self._claimed:
                    claim, ends_at = self._claimed.popleft()
                    # After a pause of the process its leases may be over.
                    if self._clock() + self._policy.attempt_s <= ends_at:
                        return claim
                self._news.clear()
                ends_at = self._clock() + self._policy.lease_s
                claims = await self._database.write(
                    lambda c: claim_due(c, self._policy.claim_size, self._policy.lease_s)
                )
                self._claimed.extend((claim, ends_at) for claim in claims)
                if not claims:
                    await self._wait(self._news)
        return None

    async def _deliver(self, claim: Claim) -> bool:
        """Attempt one delivery and store what became of it; False: the mail server is out of reach."""
        error: Exception | None = None
        try:
            await self._send(compose(claim, self._policy.sender))
            reach("email.after-send")
        except Exception as exc:  # whatever it was, this confirmation waits, and the others go on
            error = exc
        settlement = conclude(claim, error, self._policy.give_up_s, self._jitter())
        if error is not None:
            context = {
                "order_id": settlement.order_id,
                "attempt": claim.attempt,
                "delivery": settlement.delivery,
            }
            log.warning("confirmation not delivered", extra=context | _without_personal_data(error))
        await self._settlements.submit(settlement)
        self._observe("deferred" if settlement.delivery == QUEUED else settlement.delivery)
        return not isinstance(error, UnreachableError)

    async def _wait(self, event: asyncio.Event) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.poll_s):
                await event.wait()


def _without_personal_data(error: Exception) -> dict[str, str]:
    # The text of an error may quote the address, or a template's data: only its kind and place are logged.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return {"error": type(error).__name__, "where": f"{frame.name}:{frame.lineno}"}
