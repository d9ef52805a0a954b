"""Errors as RFC 9457 problem documents: one catalogue a service, one place that chooses the HTTP status.

A problem's `type` is absolute and resolves: the service serves a page for each at /problems/NAME/SLUG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, ClassVar

import orjson
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem: its HTTP status, a title, and what the client should do about it."""

    status: int
    title: str
    advice: str


COMMON: Mapping[str, ProblemType] = {
    "malformed-json": ProblemType(400, "The body is not JSON", "Send one JSON object, encoded as UTF-8."),
    "bad-request": ProblemType(400, "The request is malformed", "See the detail, and correct the request."),
    "unauthorized": ProblemType(
        401, "No valid token", "Send `Authorization: Bearer TOKEN` with a token that this service knows."
    ),
    "forbidden": ProblemType(
        403,
        "The token does not open this route",
        "Use the token of the role that the route's description names.",
    ),
    "not-found": ProblemType(404, "There is nothing here", "Check the path and the id."),
    "method-not-allowed": ProblemType(
        405, "The method is not allowed here", "Use one of the methods in the `Allow` header."
    ),
    "request-timeout": ProblemType(
        408, "The request took too long to arrive", "Send headers and body within ten seconds."
    ),
    "content-too-large": ProblemType(
        413, "The body is too large", "Send a body within the size in the detail."
    ),
    "unsupported-media-type": ProblemType(
        415, "The body's content type is not supported", "Send `Content-Type: application/json`."
    ),
    "validation-error": ProblemType(
        422, "The body or a parameter is not valid", "Correct each field that `errors` points at."
    ),
    "internal-error": ProblemType(
        500,
        "Something went wrong on our side",
        "Try again; if it stays, tell the operator the time and the path.",
    ),
    "overloaded": ProblemType(
        503, "Too much work at the moment", "Try again after the seconds in `Retry-After`."
    ),
    "storage-unavailable": ProblemType(
        503,
        "The database cannot be reached or written",
        "Try again after the seconds in `Retry-After`, with the same Idempotency-Key if you gave one.",
    ),
}


class ProblemError(Exception):
    """Raise it anywhere in a request; the slug names the problem's type in the service's catalogue."""

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})


class RuleError(Exception):
    """A rule of the service forbids what was asked for; to repeat it as it is changes nothing.

    `slug` names the problem's type in the service's catalogue.
    """

    slug: ClassVar[str]


@dataclass(frozen=True)
class Catalogue:
    """All problem types of one service, rendered under its base URL."""

    service: str
    base_url: str
    own: Mapping[str, ProblemType] = field(default_factory=dict)

    @property
    def types(self) -> dict[str, ProblemType]:
        """The common types and the service's own, by slug."""
        return {**COMMON, **self.own}

    def uri(self, slug: str) -> str:
        """The absolute URI that identifies a type, and shows its page."""
        return f"{self.base_url}/problems/{self.service}/{slug}"

    def document(
        self, slug: str, detail: str, errors: Sequence[Mapping[str, str]] = (), instance: str | None = None
    ) -> dict[str, Any]:
        """The problem document of RFC 9457, with `errors[].pointer` (RFC 6901) where fields are at fault."""
        kind = self.types[slug]
        body: dict[str, Any] = {
            "type": self.uri(slug),
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
        }
        if instance:
            body["instance"] = instance
        if errors:
            body["errors"] = list(errors)
        return body

    def response(self, problem: ProblemError, instance: str | None = None) -> Response:
        """The HTTP response; 401 carries its challenge, 503 its Retry-After."""
        status = self.types[problem.slug].status
        headers = dict(problem.headers)
        if status == 401:
            headers.setdefault("WWW-Authenticate", "Bearer")
        if status == 503:
            headers.setdefault("Retry-After", "1")
        document = self.document(problem.slug, problem.detail, problem.errors, instance)
        return Response(orjson.dumps(document), status, headers, MEDIA_TYPE)

    def page(self, slug: str) -> str | None:
        """The HTML page of a problem type; None if there is no such type."""
        kind = self.types.get(slug)
        if kind is None:
            return None
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width"><title>{escape(kind.title)}</title>'
            "<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui;max-width:40rem;"
            "margin:3rem auto;padding:0 1rem}</style>"
            f"<h1>{escape(kind.title)}</h1><p><code>{escape(slug)}</code>, HTTP {kind.status}</p>"
            f"<p><strong>What to do.</strong> {escape(kind.advice)}</p></html>"
        )
