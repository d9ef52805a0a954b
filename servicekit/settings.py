"""Settings from the environment, checked once at boot.

A service subclasses `ServiceSettings` and gives its prefix. Secrets may come from files (`X_FILE`).
A bad or missing setting ends the process with exit code 2 and one line per problem, never a traceback.
"""

import ipaddress
import os
import sys
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servicekit.simulation import ShareText, Simulation, TimeText, parse_share, parse_time
from servicekit.turns import MAX_CAPACITY_PER_S, CapacityPath

EXIT_BAD_SETTINGS = 2


def _broker_urls(urls: str) -> str:
    for url in urls.split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("nats", "tls") or not parts.hostname or parts.port == 0:
            raise ValueError("use nats://HOST:PORT or tls://HOST:PORT; several are separated by commas")
        if parts.username or parts.path or parts.query or parts.fragment:
            raise ValueError(
                "a broker's URL ends with the port; user and password have settings of their own"
            )
    return urls


BrokerUser = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Whom the broker knows a service as: one token of a subject."""


class ServiceSettings(BaseSettings):
    """What every service can be told. Durations are in seconds, sizes in bytes.

    `database_sync`: `off` is for measuring what syncing costs, with SQLite only. It breaks the promise: a
    power cut loses what was accepted, and may spoil the file.
    """

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, env_ignore_empty=True)
    # Settings that no real system has: whoever sets one is warned at boot.
    for_measuring_only: ClassVar[tuple[str, ...]] = ("database_sync",)

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65_535)
    database_url: str
    public_url: str | None = None
    operator_token: SecretStr = Field(min_length=16)
    migrate: Literal["auto", "never"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_s: float = Field(0.2, ge=0, le=5)
    header_timeout_s: float = Field(10.0, gt=0, le=120)
    body_timeout_s: float = Field(10.0, gt=0, le=120)
    max_body_bytes: int = Field(262_144, ge=1024)
    max_requests: int = Field(1_000, ge=1)
    max_connections: int = Field(5_000, ge=1)
    database_timeout_s: float = Field(5.0, gt=0, le=60)
    database_sync: Literal["full", "off"] = "full"
    crash_file: Path | None = None
    nats_url: Annotated[str, AfterValidator(_broker_urls)]
    nats_user: BrokerUser
    nats_domain: BrokerUser | None = None
    nats_password: SecretStr | None = None
    nats_ca: FilePath | None = None
    nats_cert: FilePath | None = None
    nats_key: FilePath | None = None

    @model_validator(mode="after")
    def _certificate_has_a_key(self) -> Self:
        if (self.nats_cert is None) != (self.nats_key is None):
            raise ValueError("NATS_CERT and NATS_KEY: give both or neither")
        return self

    @model_validator(mode="after")
    def _only_sqlite_goes_without_sync(self) -> Self:
        if self.database_sync != "full" and not self.database_url.startswith("sqlite"):
            raise ValueError("DATABASE_SYNC=off is for SQLite only: leave it out with PostgreSQL")
        return self

    @property
    def set_for_measuring(self) -> list[str]:
        """The variables of the settings for measuring only that are not as they should be elsewhere."""
        prefix = str(self.model_config.get("env_prefix", ""))
        fields = type(self).model_fields
        return [
            f"{prefix}{name}".upper()
            for name in self.for_measuring_only
            if getattr(self, name) != fields[name].default
        ]

    @property
    def broker_api(self) -> str:
        """The subject below which this user's account reaches JetStream's API, with a dot at its end."""
        return f"$JS.{self.nats_domain}.API." if self.nats_domain else "$JS.API."

    @property
    def broker_urls(self) -> list[str]:
        """The broker's addresses: one, or those of a cluster."""
        return [url.strip() for url in self.nats_url.split(",")]

    @property
    def base_url(self) -> str:
        """The absolute URL under which this service's problem types resolve, without a trailing slash."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.public_url or f"http://{host}:{self.port}").rstrip("/")

    @property
    def on_loopback(self) -> bool:
        """Whether the service is bound to this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit arguments first, then the environment, then the files that the environment names."""
        return init_settings, env_settings, _NamedFiles(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Read the environment; on a bad setting print one line for each and exit with code 2."""
        try:
            return cls(**given)
        except (ValidationError, SettingsFileError) as exc:
            for line in _explain(exc, str(cls.model_config.get("env_prefix", ""))):
                print(line, file=sys.stderr)
            raise SystemExit(EXIT_BAD_SETTINGS) from None


class ParticipantSettings(ServiceSettings):
    """What a service that takes part in events can be told besides.

    `simulate_*`: what it waits for beside its database, told or heard, for measuring only (see
    `servicekit.simulation`); `simulate_capacity` is in items a second, and `simulate_capacity_from` a file
    that holds it, and is read again while the service runs.
    """

    for_measuring_only: ClassVar[tuple[str, ...]] = (
        *ServiceSettings.for_measuring_only,
        "simulate_time",
        "simulate_errors",
        "simulate_capacity",
        "simulate_capacity_from",
    )

    event_batch: int = Field(100, ge=1, le=1_000)
    ack_wait_s: float = Field(10.0, ge=1, le=600)
    event_retry_min_s: float = Field(1.0, gt=0, le=60)
    event_retry_max_s: float = Field(10.0, gt=0, le=600)
    max_refusals: int = Field(5, ge=1, le=100)
    refusal_pause_s: float = Field(0.15, gt=0, le=60)
    simulate_time: TimeText | None = None
    simulate_errors: ShareText | None = None
    simulate_capacity: float | None = Field(None, gt=0, le=MAX_CAPACITY_PER_S)
    simulate_capacity_from: CapacityPath | None = None

    @model_validator(mode="after")
    def _one_capacity(self) -> Self:
        if self.simulate_capacity is not None and self.simulate_capacity_from is not None:
            raise ValueError("SIMULATE_CAPACITY and SIMULATE_CAPACITY_FROM: give one of them")
        return self

    @cached_property
    def simulated_wait(self) -> Callable[[], Awaitable[None]] | None:
        """What each item awaits first, told or heard: one simulation for both; None: nothing is simulated."""
        capacity_per_s = self.simulate_capacity or self.simulate_capacity_from
        if not (self.simulate_time or self.simulate_errors or capacity_per_s):
            return None
        simulation = Simulation(
            str(self.model_config.get("env_prefix", "")),
            service_time=None if self.simulate_time is None else parse_time(self.simulate_time),
            error_share=0.0 if self.simulate_errors is None else parse_share(self.simulate_errors),
            capacity_per_s=capacity_per_s,
        )
        return simulation.serve


class SettingsFileError(Exception):
    """A setting's `_FILE` cannot be read, or competes with the plain setting."""


class _NamedFiles(PydanticBaseSettingsSource):
    """`EMAIL_OPERATOR_TOKEN_FILE=/run/secrets/operator` gives `EMAIL_OPERATOR_TOKEN`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{self.config.get('env_prefix', '')}{field_name}".upper()
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            return None, field_name, False
        if os.environ.get(variable):
            raise SettingsFileError(f"{variable} and {variable}_FILE are both set: keep one of them")
        try:
            return Path(path).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsFileError(f"{variable}_FILE: cannot read {path}: {exc}") from exc

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(info, name)[0] for name, info in self._fields()}
        return {name: value for name, value in values.items() if value is not None}

    def _fields(self) -> list[tuple[str, FieldInfo]]:
        return list(self.settings_cls.model_fields.items())


def _explain(exc: ValidationError | SettingsFileError, prefix: str) -> list[str]:
    if isinstance(exc, SettingsFileError):
        return [str(exc)]
    lines = []
    for error in exc.errors(include_url=False, include_input=False):
        where = "_".join(str(part) for part in error["loc"])
        variable = f"{prefix}{where}".upper() if where else prefix.rstrip("_").upper()
        hint = " (or give it as a file by the name with _FILE)" if error["type"] == "missing" else ""
        lines.append(f"{variable}: {error['msg']}{hint}")
    return lines
