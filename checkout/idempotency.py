"""`Idempotency-Key` (IETF draft-ietf-httpapi-idempotency-key-header-07): which key, and for what request."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from servicekit.problems import ProblemError

MAX_KEY = 255
# For the OpenAPI document: a bare key, or a quoted one. `parse_key` decides.
KEY_PATTERN = (
    r'^(?!""$)(?:[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?|"[\x20\x21\x23-\x5b\x5d-\x7e]{1,255}")$'
)
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def parse_key(headers: Sequence[str]) -> str | None:
    """The request's key; `"k"` and `k` are the same. None without a header.

    Raises ProblemError("idempotency-key-invalid") for more than one, an empty, an over-long or a binary key.
    """
    if not headers:
        return None
    if len(headers) > 1:
        raise ProblemError("idempotency-key-invalid", "There is more than one Idempotency-Key header.")
    key = headers[0].strip()
    if quoted := _QUOTED.fullmatch(key):
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if not _PRINTABLE.fullmatch(key) or len(key) > MAX_KEY:
        detail = f"The key must have 1 to {MAX_KEY} printable ASCII characters."
        raise ProblemError("idempotency-key-invalid", detail)
    return key


def fingerprint(body: Any, named_style: str | None) -> str:
    """What a key is bound to: the body as sent, in canonical JSON, and the style if the request names one."""
    canonical = json.dumps([body, named_style], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
