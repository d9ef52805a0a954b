"""Opaque page cursors: clients hand back what they got, and read nothing into it."""

import base64
import binascii
from typing import TypeVar

import orjson

P = TypeVar("P", int, str)


class BadCursorError(Exception):
    """The cursor is not one that this service gave out."""


def encode_cursor(position: int | str) -> str:
    """Make a cursor from the position after which the next page starts."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


def decode_cursor(cursor: str, kind: type[P]) -> P:
    """The position of a cursor. Raises BadCursorError if it is not one of ours."""
    try:
        position: object = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError) as exc:
        raise BadCursorError from exc
    if not isinstance(position, kind) or isinstance(position, bool):
        raise BadCursorError
    if isinstance(position, int) and not 0 <= position < 2**63:
        raise BadCursorError
    if isinstance(position, str) and not position.isprintable():  # PostgreSQL refuses NUL
        raise BadCursorError
    return position
