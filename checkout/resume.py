"""Resume: take up whatever is unfinished and due, by whichever process gets there first.

There is no other recovery: a crashed process's orders simply fall due, and so do those whose services were
down. To resume an order is to perform it again; the services know each order id for ever.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from checkout.journal import Journal
from checkout.orders import Order, Progress
from checkout.passes import Passes, Perform
from checkout.settings import Settings
from servicekit.db import StorageUnavailableError

log = logging.getLogger("checkout.resume")

TRIAL_EVERY_S = 2.0


class Resumer:
    """Claims due orders and runs later passes over them, a bounded number at a time.

    While what a style depends on is failing, one of its waiting orders is tried every few seconds before its
    time; once that is back, all of the style's that wait are due, so that none sits out a long pause for
    nothing.

    It begins with all that waits, for what it waited for may be back; with what is leased too, if this
    process is `alone` with its database.
    """

    def __init__(
        self,
        journal: Journal,
        passes: Passes,
        performers: Mapping[str, Perform],
        settings: Settings,
        is_failing: Mapping[str, Callable[[], bool]],
        *,
        alone: bool,
    ) -> None:
        self._journal = journal
        self._passes = passes
        self._performers = performers
        self._settings = settings
        self._is_failing = is_failing
        self._alone = alone
        self._has_begun = False
        self._trouble: type[Exception] | None = None
        self._kicked = asyncio.Event()
        self._recovered: dict[str, str] = {}
        self._trial_due_at = dict.fromkeys(performers, 0.0)
        self._release_due_at = 0.0

    def kick(self) -> None:
        """Something has just fallen due: look at once."""
        self._kicked.set()

    def recovered(self, style: str, but_stamp: str = "") -> None:
        """What the style depends on is back: its orders that wait may be taken up.

        Not those whose event was emitted under `but_stamp`.
        """
        before = self._recovered.get(style, but_stamp)
        self._recovered[style] = but_stamp if before == but_stamp else ""
        self._kicked.set()

    async def run(self) -> None:
        """For ever: take up what is due, and pause where nothing is."""
        while True:
            try:
                taken = await self._round()
                self._trouble = None
            except Exception as exc:
                self._tell(exc)
                taken = 0
            if not taken:
                await self._pause()

    async def _round(self) -> int:
        now = time.monotonic()
        if not self._has_begun:
            await self._journal.make_all_due(leased_too=self._alone)
            self._has_begun = True
        if self._recovered and now >= self._release_due_at:
            self._release_due_at = now + TRIAL_EVERY_S
            await self._release()
        limits = {style: room for style in self._performers if (room := self._passes.room(style))}
        if not limits:
            return 0
        claimed = await self._journal.claim(limits, self._settings.lease_s)
        self._start(claimed)
        taken = len(claimed)
        for style in limits.keys() - {order.style for order, _ in claimed}:
            if self._is_failing[style]() and now >= self._trial_due_at[style]:
                self._trial_due_at[style] = now + TRIAL_EVERY_S
                trial = await self._journal.claim_next(self._settings.lease_s, style)
                self._start(trial)
                taken += len(trial)
        return taken

    def _start(self, claimed: Sequence[tuple[Order, Progress]]) -> None:
        for order, progress in claimed:
            self._passes.start("later", order, progress, self._performers[order.style])

    async def _release(self) -> None:
        for style in tuple(self._recovered):
            but_stamp = self._recovered.pop(style)
            self._passes.release(style, but_stamp)
            try:
                count = await self._journal.make_all_due(style, but_stamp=but_stamp)
            except Exception as exc:  # to be repeated, and no reason to take nothing up meanwhile
                self._tell(exc)
                self.recovered(style, but_stamp)
            else:
                log.info("waiting orders are due", extra={"style": style, "count": count})

    def _tell(self, exc: Exception) -> None:
        """Log trouble once, not at each round that meets it."""
        if type(exc) is not self._trouble:
            self._trouble = type(exc)
            foreseen = isinstance(exc, StorageUnavailableError)
            log.warning("cannot take up orders", extra={"error": str(exc)}, exc_info=not foreseen)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._settings.resume_poll_s):
                await self._kicked.wait()
        except TimeoutError:
            pass
        self._kicked.clear()
