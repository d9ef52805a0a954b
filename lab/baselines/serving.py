"""How a baseline is served: by uvicorn as its documentation says, ready as soon as it listens."""

from collections.abc import Mapping

import uvicorn
from fastapi import FastAPI


def add_health(app: FastAPI) -> None:
    """Add `GET /readyz` and `GET /healthz`."""

    @app.get("/readyz")
    @app.get("/healthz")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}


async def serve(app: FastAPI, settings: Mapping[str, str], prefix: str) -> None:
    """Serve at PREFIX_HOST and PREFIX_PORT until SIGTERM or SIGINT, which then ends the process."""
    config = uvicorn.Config(
        app,
        host=settings[f"{prefix}_HOST"],
        port=int(settings[f"{prefix}_PORT"]),
        http="httptools",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
    )
    await uvicorn.Server(config).serve()
