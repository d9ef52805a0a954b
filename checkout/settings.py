"""The checkout service's settings: `CHECKOUT_*` in the environment."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, HttpUrl, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from servicekit.settings import BrokerUser, ServiceSettings

Token = Annotated[SecretStr, Field(min_length=16)]


class Settings(ServiceSettings):
    """What the checkout service can be told, beyond what every service can.

    Durations are in seconds; `*_in_flight`, `*_passes` and `*_waiters` are numbers of things at once.
    `batching`: whether commands to a service that come at the same time share a request; a command waits for
    company while the newest request to the service is younger than `batch_young_s`, and commands come closer
    together than that.
    `outcome_delay_s`: for how long an outcome that needs no disk may wait for a commit that goes anyway; with
    0 each waits for the disk before anybody hears of it.
    `max_service_wait_s`: no order is accepted that would wait longer for its turn at a service.
    `http_pool`: `httpx` is for measuring what the client's own pool costs; it leaks connections.
    """

    model_config = SettingsConfigDict(env_prefix="CHECKOUT_")
    for_measuring_only: ClassVar[tuple[str, ...]] = (*ServiceSettings.for_measuring_only, "http_pool")

    port: int = Field(8000, ge=1, le=65_535)
    max_body_bytes: int = Field(65_536, ge=1024)
    max_requests: int = Field(3_000, ge=1)
    max_waiters: int = Field(1_000, ge=0)
    caller_keys: SecretStr | None = None
    style: Literal["orchestration", "choreography"] = "orchestration"
    default_wait_s: float = Field(2.0, ge=0, le=30)
    cors_origins: Annotated[str, NoDecode] = ""

    email_url: HttpUrl
    email_token: Token
    warehouse_url: HttpUrl
    warehouse_token: Token
    rewards_url: HttpUrl
    rewards_token: Token

    nats_user: BrokerUser = "checkout"
    nats_replicas: int = Field(1, ge=1, le=5)
    timeline: Literal["on", "off"] = "on"
    expected_participants: Annotated[str, NoDecode] = ""
    publish_timeout_s: float = Field(2.0, gt=0, le=30)
    broker_poll_s: float = Field(2.0, gt=0, le=60)
    emit_again_after_s: float = Field(3_600.0, gt=0)

    call_timeout_s: float = Field(2.0, gt=0, le=30)
    call_max_attempts: int = Field(4, ge=1, le=20)
    call_backoff_s: float = Field(0.1, gt=0, le=5)
    max_in_flight: int = Field(64, ge=1, le=10_000)
    batching: Literal["on", "off"] = "on"
    batches_in_flight: int = Field(32, ge=1, le=1_000)
    batch_young_s: float = Field(0.003, ge=0, le=1)
    outcome_delay_s: float = Field(0.02, ge=0, le=1)
    http_pool: Literal["aiohttp", "httpx"] = "aiohttp"
    slot_timeout_s: float = Field(1.0, gt=0, le=10)
    max_service_wait_s: float = Field(2.0, gt=0, le=60)
    retry_budget_ratio: float = Field(0.2, ge=0, le=1)
    retry_budget_floor_per_s: float = Field(10.0, ge=0)

    pass_timeout_s: float = Field(8.0, gt=0, le=60)
    lease_s: float = Field(15.0, gt=0, le=300)
    resume_min_s: float = Field(5.0, gt=0)
    resume_max_s: float = Field(600.0, gt=0)
    resume_poll_s: float = Field(0.5, gt=0, le=10)
    max_first_passes: int = Field(512, ge=1)
    max_later_passes: int = Field(64, ge=1)
    max_event_streams: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.caller_keys is None and not self.on_loopback:
            raise ValueError(
                f"CHECKOUT_HOST {self.host} is reachable from outside: set CHECKOUT_CALLER_KEYS "
                "(name:key,name:key) or bind to 127.0.0.1"
            )
        if self.pass_timeout_s >= self.lease_s:
            raise ValueError("CHECKOUT_LEASE_S must be longer than CHECKOUT_PASS_TIMEOUT_S")
        if self.publish_timeout_s >= self.pass_timeout_s:
            raise ValueError("CHECKOUT_PASS_TIMEOUT_S must be longer than CHECKOUT_PUBLISH_TIMEOUT_S")
        self.callers()
        return self

    def callers(self) -> dict[str, str]:
        """The callers' keys by name; empty: the public API is open. Raises ValueError if malformed."""
        if self.caller_keys is None:
            return {}
        callers: dict[str, str] = {}
        for entry in self.caller_keys.get_secret_value().replace("\n", ",").split(","):
            name, colon, key = entry.strip().partition(":")
            if not name and not colon:
                continue
            if not name or len(key) < 16 or name in callers or key in callers.values():
                raise ValueError(
                    "CHECKOUT_CALLER_KEYS: give name:key pairs, each name and each key once, "
                    "keys of 16 characters or more"
                )
            callers[name] = key
        if not callers:
            raise ValueError("CHECKOUT_CALLER_KEYS holds no name:key pair")
        return callers

    def participants_expected(self) -> frozenset[str]:
        """Who must have joined once before the service is ready."""
        return frozenset(name.strip() for name in self.expected_participants.split(",") if name.strip())

    def origins(self) -> list[str]:
        """The origins that browsers may call from."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]
