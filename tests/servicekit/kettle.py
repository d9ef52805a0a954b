"""A participant with no business: it makes tea, once for each event, on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic_settings import SettingsConfigDict

from servicekit.bus import Bus, Stream
from servicekit.settings import ParticipantSettings

TEAS = Stream("TEAS", ("teas.wanted",))
TOLD = Stream("TOLD", ("outcomes.*",), storage="memory")
LETTERS = Stream("LETTERS", ("dead_letters.*.*",), max_per_subject=1)
WANTED = "teas.wanted"
PATIENCE_S = 10.0


class KettleSettings(ParticipantSettings):
    """`KETTLE_*` in the environment."""

    model_config = SettingsConfigDict(env_prefix="KETTLE_")

    nats_user: str = "kettle"


def settings_for(url: str, **given: Any) -> KettleSettings:
    """Settings that retry soon, so that tests don't wait."""
    needed: dict[str, Any] = {
        "port": 8009,
        "database_url": "sqlite:///x.db",
        "operator_token": "keeper-token-0123",
        "nats_url": url,
        "event_retry_min_s": 0.1,
        "event_retry_max_s": 0.2,
        "refusal_pause_s": 0.02,
    }
    return KettleSettings(**{**needed, **given})


async def until(true: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait until something is so; TimeoutError if it never is."""
    async with asyncio.timeout(within_s):
        while not true():  # noqa: ASYNC110 - what is waited for tells nobody when it comes true
            await asyncio.sleep(0.01)


@asynccontextmanager
async def bus_to(url: str, **given: Any) -> AsyncIterator[Bus]:
    """A bus that is connected."""
    async with Bus(settings_for(url, **given)) as bus:
        await until(lambda: bus.connected)
        yield bus
