"""What services are made to simulate, as people write it, and as settings. For measuring only."""

import re
from collections.abc import Mapping

from lab.errors import LabError

TIME = re.compile(r"^(lognormal|exponential|constant):\d+(\.\d+)?(ms|s)$")
SHARE = re.compile(r"^\d+(\.\d+)?%$")


def parse_times(given: str, services: frozenset[str]) -> dict[str, str]:
    """Service times by name from `email=lognormal:80ms,warehouse=constant:5ms`. Raises `LabError`."""
    return _parse("--service-time", given, services, TIME, "email=lognormal:80ms")


def parse_errors(given: str, services: frozenset[str]) -> dict[str, str]:
    """Error rates by name from `warehouse=1%`. Raises `LabError`."""
    return _parse("--error-rate", given, services, SHARE, "warehouse=1%")


def simulated(
    service_time: Mapping[str, str] | None = None,
    error_rate: Mapping[str, str] | None = None,
    capacity: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The settings by which services simulate these."""
    told = {"TIME": service_time, "ERRORS": error_rate, "CAPACITY": capacity}
    return {
        f"{name.upper()}_SIMULATE_{what}": value
        for what, by_name in told.items()
        for name, value in (by_name or {}).items()
    }


def _parse(
    option: str, given: str, services: frozenset[str], pattern: re.Pattern[str], example: str
) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, given.split(",")):
        name, equals, value = part.strip().partition("=")
        if name not in services:
            raise LabError(f"{option} {part}: there is no service {name}: {', '.join(sorted(services))}")
        if not equals or not pattern.match(value) or name in found:
            raise LabError(f"{option} {part}: give each service once, as {example}")
        found[name] = value
    return found
