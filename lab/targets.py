"""A checkout of somebody else's: where it takes orders, and where its services tell what they did.

It is described by a TOML file, so that any implementation, in any language, can be driven and audited from
outside. It refuses addresses beyond this machine unless the file says `remote = true`: drive only what is
yours. It refuses to compare one that shows no effects: a speed without a ledger is worth nothing.
"""

import asyncio
import ipaddress
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from lab.bench.orders import Origin
from lab.client import Call, Patience, RefusedError, anonymous, bearer
from lab.errors import FAILED, LabError
from lab.ledger import OWED_BY_MEMBERS, Effect
from lab.reading import EFFECTS_A_PAGE, read_effects_by

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
EFFECT_KEYS = {"url", "token", "token_file", "members_only"}
SHOWN_IDS = 20
CONNECT_S = 5.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")  # it becomes a file's name and a heading
TAKEN = ("equivalent", "undecided")  # a verdict is one of these, or the better arm's name
STYLE = re.compile(r"[A-Za-z0-9._~-]{0,40}")  # what a query holds as it is
SECRET = re.compile(r"[!-~]+")  # what a header holds


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
        found = {}
        for name, at in self.effects.items():
            whose = f"{self.name}'s {name}"
            try:
                headers = bearer(at.token) if at.token else anonymous
                call = Call("GET", at.url, headers, {"limit": EFFECTS_A_PAGE})
                found[name] = await read_effects_by(client, whose, call, patience)
            except RefusedError as error:
                raise LabError(f"{whose} does not show its effects at {at.url}: {error}", FAILED) from error
        return found

    async def check(self, client: httpx.AsyncClient, patience: Patience) -> None:
        """Raise `LabError`, saying what to do, unless it takes connections and shows its effects."""
        host, port = self.origin.host, self.origin.port
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            why = f"nothing listens at {host} port {port}: start it first"
            raise LabError(f"the target {self.name}: {why}", FAILED) from error
        writer.close()
        await self.read_effects(client, patience)

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
    """The target that `NAME=FILE.toml` means, with its effects. Raises `LabError`, saying what is wrong."""
    name, equals, file = given.partition("=")
    if not (equals and name and file):
        raise LabError(f"--target {given}: give NAME=FILE.toml")
    if not NAME.fullmatch(name) or name in TAKEN:
        raise LabError(
            f"--target {given}: a name has letters, digits, . _ - only, at most 40, and is no verdict"
        )
    target = read_target(name, Path(file))
    if not target.effects:
        raise LabError(f"{file} names no effects: give each service's, as [effects.email] with its url")
    return target


def read_target(name: str, file: Path) -> Target:
    """The target that a file describes. Raises `LabError`, saying what is wrong."""
    try:
        told = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"cannot read the target {file}: {error}") from error
    try:
        return _parse(name, told, file.parent)
    except ValueError as error:
        raise LabError(f"{file} describes no target: {error} (docs/lab.md shows one)") from error


def loopback_origin(url: str, *, remote: bool, token: str | None = None) -> Origin:
    """The origin that a URL means. Raises ValueError if it is no plain HTTP, or is not on this machine."""
    parts = _checked(url, remote=remote)
    return Origin(str(parts.hostname), parts.port or 80, parts.path.rstrip("/"), token)


def _parse(name: str, told: Mapping[str, Any], folder: Path) -> Target:
    _refuse_unknown("", told, KNOWN)
    remote = told.get("remote", False)
    if not isinstance(remote, bool):
        raise ValueError("remote: say true or false")
    operator = _secret("", told, "operator_token", folder)
    style = _text("", told, "style", "")
    if not STYLE.fullmatch(style):
        raise ValueError(f"style: {style!r} does not fit into a URL's query")
    token = _secret("", told, "token", folder)
    origin = loopback_origin(_text("", told, "checkout"), remote=remote, token=token)
    services = told.get("effects", {})
    if not isinstance(services, dict):
        raise ValueError("effects: give a table for each service, as [effects.email] with its url")
    effects = {
        service: _parse_effects(service, at, operator, remote, folder) for service, at in services.items()
    }
    return Target(name, origin, style, operator or "", effects)


def _parse_effects(service: str, at: Any, operator: str | None, remote: bool, folder: Path) -> EffectsAt:
    within = f"effects.{service}."
    if not isinstance(at, dict):
        raise ValueError(f"effects.{service}: give a table with its url")
    _refuse_unknown(within, at, EFFECT_KEYS)
    url = _text(within, at, "url")
    _checked(url, remote=remote)
    members_only = at.get("members_only", service in OWED_BY_MEMBERS)
    if not isinstance(members_only, bool):
        raise ValueError(f"{within}members_only: say true or false")
    return EffectsAt(url, _secret(within, at, "token", folder) or operator or "", members_only)


def _refuse_unknown(within: str, told: Mapping[str, Any], known: Collection[str]) -> None:
    if strange := sorted(told.keys() - known):
        raise ValueError(f"{within}{strange[0]} is unknown: known are {', '.join(sorted(known))}")


def _text(within: str, told: Mapping[str, Any], key: str, otherwise: str | None = None) -> str:
    value = told.get(key, otherwise)
    if value is None:
        raise ValueError(f"{within}{key} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{within}{key}: give a text in quotes")
    return value


def _checked(url: str, *, remote: bool) -> SplitResult:
    """The parts of a URL that can be driven: plain HTTP, on this machine or said to be remote."""
    parts = urlsplit(url)
    plain = (
        parts.scheme == "http" and parts.hostname and not (parts.query or parts.fragment or parts.username)
    )
    if not plain or not SECRET.fullmatch(url):
        raise ValueError(f"{url!r} is not as http://host:port/path")
    if parts.port == 0:
        raise ValueError(f"{url!r} has no port to connect to")
    if not (remote or _is_loopback(str(parts.hostname))):
        raise ValueError(f"{url} is not on this machine; say remote = true if it is yours to load")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secret(within: str, told: Mapping[str, Any], key: str, folder: Path) -> str | None:
    """A token that the file holds, or names a file for (relative to it); None if it does neither."""
    if key not in told and f"{key}_file" not in told:
        return None
    if key in told and f"{key}_file" in told:
        raise ValueError(f"{within}{key} and {key}_file: give one of them")
    value = told.get(key)
    if value is None:
        file = folder / _text(within, told, f"{key}_file")
        try:
            value = file.read_text().strip()
        except (OSError, ValueError) as error:
            raise ValueError(f"{within}{key}_file: cannot read {file}: {error}") from error
    if not isinstance(value, str) or not SECRET.fullmatch(value):
        raise ValueError(f"{within}{key}: a token is one line of printable characters without spaces")
    return value
