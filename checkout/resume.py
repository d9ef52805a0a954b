"""Resume: take up whatever is unfinished and due, by whichever process gets there first.

There is no other recovery: a crashed process's orders simply fall due, and so do those whose services were
down. To resume an order is to perform it again; the services know each order id for ever.
"""

import asyncio
import logging
from collections.abc import Mapping

from checkout.journal import Journal
from checkout.passes import Passes, Perform
from checkout.settings import Settings

log = logging.getLogger("checkout.resume")


class Resumer:
    """Claims due orders and runs later passes over them, a bounded number at a time."""

    def __init__(
        self, journal: Journal, passes: Passes, performers: Mapping[str, Perform], settings: Settings
    ) -> None:
        self._journal = journal
        self._passes = passes
        self._performers = performers
        self._settings = settings
        self._kicked = asyncio.Event()

    def kick(self) -> None:
        """Something has just fallen due: look at once."""
        self._kicked.set()

    async def run(self, *, everything_is_due: bool) -> None:
        """For ever. `everything_is_due`: nobody else serves this journal, so nobody else holds a lease."""
        while True:
            try:
                if everything_is_due:
                    count = await self._journal.make_all_due()
                    log.info("unfinished orders found at start", extra={"count": count})
                    everything_is_due = False
                taken = await self._take()
            except Exception:
                log.warning("cannot look for unfinished orders", exc_info=True)
                taken = 0
            if not taken:
                await self._pause()

    async def _take(self) -> int:
        room = self._passes.room()
        if room <= 0:
            return 0
        claimed = await self._journal.claim(room, self._settings.lease_s)
        for order, progress in claimed:
            self._passes.start("later", order, progress, self._performers[order.style])
        return len(claimed)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._settings.resume_poll_s):
                await self._kicked.wait()
        except TimeoutError:
            pass
        self._kicked.clear()
