"""The same tutorial conductor with one thing changed: httpx speaks through aiohttp's connection pool.

This is the baseline that the goals are set against, since the real conductor uses the same transport: what
is left between the two is the price of the journal, the retries and the checks, not of httpx's pool.
Served by `uvicorn --factory lab.baselines.naive_aiohttp:create_app`.
"""

import os

import httpx
from fastapi import FastAPI
from httpx_aiohttp import AiohttpTransport

from lab.baselines.naive_httpx import TIMEOUT_S, conduct_with

# 64 clients make three calls each; under the default of 100 connections they wait for one another.
LIMITS = httpx.Limits(max_connections=256)


def create_app() -> FastAPI:
    """The application on aiohttp's connection pool; addresses and tokens come from NAIVE_* variables."""
    transport = AiohttpTransport(limits=LIMITS)
    return conduct_with(httpx.AsyncClient(timeout=TIMEOUT_S, transport=transport), os.environ)
