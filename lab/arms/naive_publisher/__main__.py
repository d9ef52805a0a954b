"""Serves the naive publisher as the checkout service: `python -m checkout` in its tree."""

import os
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import uvloop

from lab.baselines.book import open_book
from lab.baselines.events import CREATED, jetstream
from lab.baselines.publisher import publish_with
from lab.baselines.serving import serve
from lab.baselines.store import OrderStore


async def main() -> None:
    """Run until told to stop."""
    settings = os.environ
    async with AsyncExitStack() as stack:
        file = Path(settings["CHECKOUT_DATABASE_URL"].removeprefix("sqlite:///"))
        store = await stack.enter_async_context(OrderStore(file))
        stream = await stack.enter_async_context(jetstream(settings, "CHECKOUT"))
        publish = partial(stream.publish, CREATED)
        app = publish_with(publish, store, open_book(settings.get("CHECKOUT_BOOK")))
        await serve(app, settings, "CHECKOUT")


if __name__ == "__main__":
    uvloop.run(main())
