"""Settings from the environment, checked once at boot.

A service subclasses `ServiceSettings` and gives its prefix. Secrets may come from files (`X_FILE`).
A bad or missing setting ends the process with exit code 2 and one line per problem, never a traceback.
"""

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

EXIT_BAD_SETTINGS = 2


class ServiceSettings(BaseSettings):
    """What every service can be told. Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(extra="ignore", case_sensitive=False, env_ignore_empty=True)

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
    crash_file: Path | None = None

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
