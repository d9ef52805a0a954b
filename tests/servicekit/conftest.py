"""A service with no business: what every service has, and a few routes to try it on."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from servicekit.auth import Authenticator, Caller, Credential
from servicekit.metrics import Metrics
from servicekit.problems import Catalogue, ProblemType
from servicekit.settings import BrokerUser, ServiceSettings
from servicekit.web import Health, create_service_app

OWN = {"out-of-tea": ProblemType(409, "There is no <tea> left", "Brew some & try again.")}
KEEPER = {"Authorization": "Bearer keeper-token-0123"}
GUEST = {"Authorization": "Bearer guest-token-01234"}


class Settings(ServiceSettings):
    """`KETTLE_*` in the environment."""

    model_config = SettingsConfigDict(env_prefix="KETTLE_")

    port: int = Field(8009, ge=1, le=65_535)
    sugar: SecretStr | None = None
    nats_user: BrokerUser = "kettle"


class Cup(BaseModel):
    """What can be sent."""

    size: int


def settings(**given: Any) -> Settings:
    needed = {
        "database_url": "sqlite:///x.db",
        "operator_token": "keeper-token-0123",
        "nats_url": "nats://127.0.0.1:1",
    }
    return Settings(**{**needed, **given})


async def fine() -> None:
    """Nothing is missing."""


def create_app(health: Health | None = None, **given: Any) -> FastAPI:
    app = create_service_app(
        title="Kettle",
        description="Brews.",
        version="1",
        catalogue=Catalogue("kettle", "http://kettle.test", OWN),
        metrics=Metrics(),
        health=health or Health(check=fine),
        settings=settings(**given),
    )
    auth = Authenticator(
        [
            Credential("keeper-token-0123", Caller("operator", "keeper")),
            Credential("guest-token-01234", Caller("caller", "guest")),
        ]
    )

    @app.post("/cups")
    async def fill(cup: Cup) -> dict[str, int]:
        return {"size": cup.size}

    @app.get("/whoami")
    async def who(caller: Annotated[Caller, Depends(auth.require("operator"))]) -> dict[str, str]:
        return {"name": caller.name}

    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://kettle.test")


@pytest.fixture
async def app() -> FastAPI:
    return create_app()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as opened:
        yield opened
