"""What an OpenAPI document cannot say, told to Schemathesis: real addresses, and fresh keys."""

import re
from typing import Any
from uuid import uuid4

import iso4217
import schemathesis
from email_validator import EmailNotValidError
from hypothesis import strategies as st

from checkout.idempotency import KEY_PATTERN
from checkout.schemas import COUNTRIES
from servicekit.fields import parse_address


def _is_real(address: str) -> bool:
    try:
        return bool(parse_address(address))
    except EmailNotValidError:  # a reserved domain, say
        return False


def _whole(value: Any) -> Any:
    """Whole numbers without a fraction: to JSON Schema 2.0 is an integer, to us it is not."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


schemathesis.openapi.format("email", st.emails().filter(_is_real))
schemathesis.openapi.format("iso-4217", st.sampled_from([each.code for each in iso4217.Currency]))
schemathesis.openapi.format("iso-3166-1-alpha-2", st.sampled_from(sorted(COUNTRIES)))


@schemathesis.hook
def before_call(context: Any, case: Any, **options: Any) -> None:
    """A valid key stays a valid one, but no two requests share it."""
    case.body = _whole(case.body)
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.match(KEY_PATTERN, key):
        case.headers["Idempotency-Key"] = str(uuid4())
