"""Keeps listening, one step after the other, and tells when it has gone deaf and when it hears again.

Refuses to tell it at each try: the gauge says how things are now.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from prometheus_client import CollectorRegistry, Gauge

from servicekit.link import BusUnavailableError

log = logging.getLogger(__name__)

# At the start, and after a connection was lost, the first try is too early.
TRIES_BEFORE_DEAF = 2


def hearing_gauge(registry: CollectorRegistry) -> Gauge:
    """Whether somebody hears; one for each service."""
    return Gauge("hearing", "1 while messages can be read from the broker, else 0.", registry=registry)


async def listen(step: Callable[[], Awaitable[object]], pause_s: float, hearing: Gauge) -> NoReturn:
    """Repeat `step`, which returns if the broker let it read; `pause_s` after each error."""
    failures, told = 0, set[type[Exception]]()
    while True:
        try:
            await step()
        except Exception as exc:
            failures += 1
            hearing.set(0)
            unforeseen = not isinstance(exc, BusUnavailableError)
            if type(exc) not in told and (unforeseen or failures >= TRIES_BEFORE_DEAF):
                told.add(type(exc))
                if unforeseen:
                    log.exception("hearing broke off")
                else:
                    log.warning("nothing is heard", extra={"error": str(exc)})
            await asyncio.sleep(pause_s)
        else:
            failures = 0
            hearing.set(1)
            if told:
                log.warning("heard again")
                told.clear()
