"""The tutorial's conductor on httpx's own connection pool.

Served by `uvicorn --factory lab.baselines.naive_httpx:create_app`.
"""

import os

import httpx
from fastapi import FastAPI

from lab.baselines.calls import TIMEOUT_S
from lab.baselines.conductor import conduct_with


def create_app() -> FastAPI:
    """The application; addresses and tokens come from NAIVE_* variables.

    The pool's limits are httpx's own: its cost grows with its connections, so higher ones bring nothing.
    """
    return conduct_with(httpx.AsyncClient(timeout=TIMEOUT_S), os.environ, "NAIVE")
