"""A checkout of somebody else's: where it takes orders, and where its services tell what they did.

It is described by a TOML file, so that any implementation, in any language, can be driven and audited from
outside. It refuses addresses beyond this machine unless the file says that they are to be driven.
"""

import ipaddress
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from lab.bench.orders import Origin
from lab.client import Patience
from lab.errors import LabError
from lab.ledger import OWED_BY_MEMBERS, Effect
from lab.reading import read_effects_at

KNOWN = {
    "checkout",
    "style",
    "token",
    "token_file",
    "operator_token",
    "operator_token_file",
    "remote",
    "effects",
}
SHOWN_IDS = 20
EFFECT_KEYS = {"url", "token", "token_file", "members_only"}


@dataclass(frozen=True, slots=True)
class EffectsAt:
    """Where one service pages through its effects; `members_only`: it owes none for other customers."""

    url: str
    token: str
    members_only: bool


@dataclass(frozen=True, slots=True)
class Target:
    """An implementation of the checkout API under a name; `style` is what it is asked for, if anything."""

    name: str
    origin: Origin
    style: str
    operator_token: str
    effects: Mapping[str, EffectsAt]

    async def read_effects(self, client: httpx.AsyncClient, patience: Patience) -> dict[str, list[Effect]]:
        """All effects by service. Raises `LabError` where they cannot be read."""
        return {
            name: await read_effects_at(client, f"{self.name}'s {name}", at.url, at.token, patience)
            for name, at in self.effects.items()
        }

    def reconcile(
        self, promised: Mapping[str, bool], effects: Mapping[str, Sequence[Effect]]
    ) -> dict[str, Any]:
        """The ledger of these orders, each with whether it is a member's, as plain JSON values.

        Effects for orders that were not given out by us are others' business: a target may have more clients.
        """
        missing: dict[str, list[str]] = {}
        duplicate: dict[str, list[str]] = {}
        unexpected: dict[str, list[str]] = {}
        for name, at in self.effects.items():
            times = Counter(effect.order_id for effect in effects[name])
            owed = {order_id: member or not at.members_only for order_id, member in promised.items()}
            missing[name] = [each for each, owes in owed.items() if owes and not times[each]]
            duplicate[name] = [each for each in owed if times[each] > 1]
            unexpected[name] = [each for each, owes in owed.items() if times[each] and not owes]
        kinds = {"missing": missing, "duplicate": duplicate, "unexpected": unexpected}
        counts = {kind: sum(map(len, found.values())) for kind, found in kinds.items()}
        return {
            "balances": bool(self.effects) and not any(counts.values()),
            "accepted": len(promised),
            **counts,
            "ids": {
                kind: {name: ids[:SHOWN_IDS] for name, ids in found.items()} for kind, found in kinds.items()
            },
        }


def parse_option(given: str) -> Target:
    """The target that `NAME=FILE.toml` means. Raises `LabError`, saying what is wrong."""
    name, equals, file = given.partition("=")
    if not (equals and name and file):
        raise LabError(f"--target {given}: give NAME=FILE.toml")
    return read_target(name, Path(file))


def read_target(name: str, file: Path) -> Target:
    """The target that a file describes. Raises `LabError`, saying what is wrong."""
    try:
        told = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read the target {file}: {error}") from error
    try:
        return _parse(name, told, file.parent)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise LabError(f"{file} describes no target: {why} (docs/lab.md shows one)") from error


def loopback_origin(url: str, *, remote: bool, token: str | None = None) -> Origin:
    """The origin that a URL means. Raises ValueError if it is no plain HTTP, or is not on this machine."""
    parts = _checked(url, remote=remote)
    return Origin(str(parts.hostname), parts.port or 80, parts.path.rstrip("/"), token)


def _parse(name: str, told: Mapping[str, Any], folder: Path) -> Target:
    if strange := sorted(told.keys() - KNOWN):
        raise ValueError(f"{', '.join(strange)}: known are {', '.join(sorted(KNOWN))}")
    remote = told.get("remote", False) is True
    operator = _secret(told, "operator_token", folder) or ""
    effects = {}
    for service, at in told.get("effects", {}).items():
        if strange := sorted(at.keys() - EFFECT_KEYS):
            raise ValueError(f"effects.{service}: {', '.join(strange)} is unknown")
        _checked(at["url"], remote=remote)
        token = _secret(at, "token", folder) or operator
        effects[service] = EffectsAt(
            at["url"], token, bool(at.get("members_only", service in OWED_BY_MEMBERS))
        )
    origin = loopback_origin(told["checkout"], remote=remote, token=_secret(told, "token", folder))
    return Target(name, origin, str(told.get("style", "")), operator, effects)


def _checked(url: str, *, remote: bool) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url}: give http://host:port, without a query")
    if not (remote or _is_loopback(parts.hostname)):
        raise ValueError(f"{url} is not on this machine: say remote = true if it is yours to load")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secret(told: Mapping[str, Any], key: str, folder: Path) -> str | None:
    file = told.get(f"{key}_file")
    if file is None:
        return None if told.get(key) is None else str(told[key])
    if key in told:
        raise ValueError(f"{key} and {key}_file: give one of them")
    return (folder / str(file)).read_text().strip()
