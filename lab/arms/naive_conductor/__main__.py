"""Serves the naive conductor as the checkout service: `python -m checkout` in its tree."""

import os

import uvloop

from lab.baselines.calls import pooled_client
from lab.baselines.conductor import conduct_with
from lab.baselines.serving import serve


async def main() -> None:
    """Run until told to stop."""
    await serve(conduct_with(pooled_client(), os.environ, "CHECKOUT"), os.environ, "CHECKOUT")


if __name__ == "__main__":
    uvloop.run(main())
