"""`Prefer` (RFC 7240): how long a client wants to wait for an order's outcome. Malformed ones are ignored."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_WAIT_S = 30

# Longer headers are no preferences; the bound keeps what parsing them costs small.
MAX_LENGTH = 1_000

# Possessive quantifiers (`++`, `*+`, `?+`): a malformed header must not be tried in every way that there is.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
_WORD = rf"(?:{_NAME}|{_QUOTED})"
# A list element may carry parameters; neither `wait` nor `respond-async` has any, so they are passed over.
_PREFERENCE = re.compile(
    rf"\s*+(?P<name>{_NAME})(?:\s*+=\s*+(?P<value>{_WORD}))?+"
    rf"(?:\s*+;\s*+(?:{_NAME}(?:\s*+=\s*+{_WORD})?+)?+)*+\s*+"
)
_ELEMENT = re.compile(rf"(?:{_QUOTED}|[^,\"])++")


@dataclass(frozen=True)
class Preferences:
    """What the client prefers: to wait at most `wait_s` seconds, and to be answered asynchronously."""

    wait_s: int | None = None
    respond_async: bool = False

    def wait_or(self, default_s: float) -> float:
        """How long to wait, in seconds: as preferred, else not at all for `respond-async` alone."""
        if self.wait_s is not None:
            return float(self.wait_s)
        return 0.0 if self.respond_async else default_s

    def applied(self, *, answered_early: bool) -> str | None:
        """The `Preference-Applied` header; `answered_early` says that the order is not final yet."""
        applied = []
        if self.respond_async and answered_early:
            applied.append("respond-async")
        if self.wait_s is not None:
            applied.append(f"wait={self.wait_s}")
        return ", ".join(applied) or None


def parse_preferences(headers: Sequence[str]) -> Preferences:
    """Read all `Prefer` headers of a request; of a preference given twice the first counts."""
    found: dict[str, str | None] = {}
    given = ",".join(headers)
    for element in _ELEMENT.findall(given) if len(given) <= MAX_LENGTH else ():
        match = _PREFERENCE.fullmatch(element)
        if match:
            found.setdefault(match["name"].lower(), match["value"])
    wait = (found.get("wait") or "").strip('"')
    wait_s = min(int(wait[:10]), MAX_WAIT_S) if wait.isascii() and wait.isdigit() else None
    return Preferences(wait_s, "respond-async" in found)
