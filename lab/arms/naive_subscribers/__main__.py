"""Runs the naive publisher's subscribers, one for each service: `python -m subscribers` in its tree."""

import os
from contextlib import AsyncExitStack

import uvloop
from fastapi import FastAPI

from lab.baselines.calls import pooled_client, read_services
from lab.baselines.events import jetstream
from lab.baselines.serving import add_health, serve
from lab.baselines.subscribers import Subscribers


async def main() -> None:
    """Run until told to stop."""
    settings = os.environ
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(pooled_client())
        stream = await stack.enter_async_context(jetstream(settings, "SUBSCRIBERS"))
        await Subscribers(client, read_services(settings, "SUBSCRIBERS")).listen(stream)
        app = FastAPI(title="A tutorial's subscribers")
        add_health(app)
        await serve(app, settings, "SUBSCRIBERS")


if __name__ == "__main__":
    uvloop.run(main())
