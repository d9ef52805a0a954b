"""The same tutorial conductor with one thing changed: httpx speaks through aiohttp's connection pool.

This is the baseline that the goals are set against, since the real conductor uses the same transport: what
is left between the two is the price of the journal, the retries and the checks, not of httpx's pool.
Served by `uvicorn --factory lab.baselines.naive_aiohttp:create_app`.
"""

import os

from fastapi import FastAPI

from lab.baselines.calls import pooled_client
from lab.baselines.conductor import conduct_with


def create_app() -> FastAPI:
    """The application on aiohttp's connection pool; addresses and tokens come from NAIVE_* variables."""
    return conduct_with(pooled_client(), os.environ, "NAIVE")
