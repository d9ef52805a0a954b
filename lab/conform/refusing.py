"""Checks of what is refused: each by its status, with a problem document (RFC 9457) that says why."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from lab.conform.section import Section
from lab.conform.subject import Reply, SkippedError, Subject, require
from lab.samples import sample_order

MEDIA_TYPE = "application/problem+json"
LARGEST_BODY_BYTES = 64 * 1024
JSON = {"Content-Type": "application/json"}
UNKNOWN_ORDER = "/checkouts/019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1aff"

Spoil = Callable[[dict[str, Any]], Any]


def _line(**fields: Any) -> Spoil:
    return lambda order: order["lines"][1].update(fields)


INVALID: tuple[tuple[str, Spoil], ...] = (
    ("#/lines/1/quantity", _line(quantity=0)),
    ("#/lines/1/quantity", _line(quantity=10_001)),
    ("#/lines/1/quantity", _line(quantity="2")),
    ("#/lines/1/unit_price_minor", _line(unit_price_minor=-1)),
    ("#/lines/1/unit_price_minor", _line(unit_price_minor=100_000_001)),
    ("#/lines/1/sku", _line(sku="")),
    ("#/lines/1/sku", _line(sku="s" * 65)),
    ("#/lines", lambda order: order.update(lines=[])),
    ("#/lines", lambda order: order.update(lines=order["lines"][:1] * 101)),
    ("#/currency", lambda order: order.pop("currency")),
    ("#/currency", lambda order: order.update(currency="pounds")),
    ("#/customer/email", lambda order: order["customer"].update(email="a@example.com, b@example.com")),
    ("#/customer/name", lambda order: order["customer"].update(name="Ada\r\nBcc: b@example.com")),
    ("#/customer/rewards_member", lambda order: order["customer"].update(rewards_member="yes")),
    ("#/ship_to/country", lambda order: order["ship_to"].update(country="XX")),
    ("#/ship_to/city", lambda order: order["ship_to"].pop("city")),
    ("#/surprise", lambda order: order.update(surprise=1)),
)

refusing = Section("docs/api.md, Errors")
limits = Section("docs/api.md, Place an order")


@limits.check("invalid-fields", "A field that is not valid is 422, and `errors[].pointer` names it.")
async def invalid_fields(subject: Subject) -> None:
    for pointer, spoil in INVALID:
        order = sample_order()
        spoil(order)
        reply = await subject.place(order)
        errors = expect_problem(reply, 422).get("errors")
        pointers = [error.get("pointer") for error in errors or [] if isinstance(error, dict)]
        require(pointer in pointers, f"{reply.asked} with a wrong {pointer}: pointers are {pointers}")


@limits.check("invalid-style", "A style that does not exist is 422, and `errors[].parameter` names it.")
async def invalid_style(subject: Subject) -> None:
    reply = await subject.place(style="improvisation")
    errors = expect_problem(reply, 422).get("errors") or []
    require(any(error.get("parameter") == "style" for error in errors), f"{reply}: style is not named")


@limits.check("malformed-json", "A body that is not JSON is 400.")
async def malformed_json(subject: Subject) -> None:
    for content in (b'{"customer": ', b"\xff\xfe"):
        expect_problem(await subject.send("POST", subject.orders_path(None), JSON, content), 400)


@limits.check("media-type", "A body that is not `application/json` is 415.")
async def media_type(subject: Subject) -> None:
    headers = {"Content-Type": "text/plain"}
    expect_problem(await subject.send("POST", subject.orders_path(None), headers, _encoded()), 415)


@limits.check("body-size", "A body over 64 KiB is 413.")
async def body_size(subject: Subject) -> None:
    content = _encoded().ljust(LARGEST_BODY_BYTES + 1)
    expect_problem(await subject.send("POST", subject.orders_path(None), JSON, content), 413)


@refusing.check("not-found", "An order that does not exist is 404, and so is an unknown path.")
async def not_found(subject: Subject) -> None:
    for path in (UNKNOWN_ORDER, "/no-such-path"):
        expect_problem(await subject.send("GET", path), 404)


@refusing.check("method", "A method that a path does not know is 405, with `Allow`.")
async def method(subject: Subject) -> None:
    reply = await subject.send("DELETE", "/checkouts")
    expect_problem(reply, 405)
    require("POST" in reply.headers.get("Allow", ""), f"{reply}: Allow does not name POST")


@refusing.check("token", "Where callers need a token, a request without one is 401.")
async def token(subject: Subject) -> None:
    if not subject.target.origin.token:
        raise SkippedError("no token is given, so the API is taken to be open")
    expect_problem(await subject.place(token=False), 401)


@refusing.check("problem-page", "A problem's `type` resolves to a page.")
async def problem_page(subject: Subject) -> None:
    kind = expect_problem(await subject.send("GET", UNKNOWN_ORDER), 404)["type"]
    parts, origin = urlsplit(kind), subject.target.origin
    if (parts.hostname, parts.port or 80) != (origin.host, origin.port):
        raise SkippedError(f"{kind} is on another server, which is not asked")
    reply = await subject.send("GET", parts.path.removeprefix(origin.path))
    require(reply.status == 200, f"{reply} (200 was due)")


def expect_problem(reply: Reply, status: int, *, slug: str | None = None) -> dict[str, Any]:
    """The problem document of an answer; raises `FailedError` where it is none, or of another status."""
    require(reply.status == status, f"{reply} ({status} was due)")
    told = reply.headers.get("Content-Type", "")
    require(told.split(";")[0].strip() == MEDIA_TYPE, f"{reply}: the content type is {told!r}")
    problem = reply.document()
    kind = problem.get("type")
    absolute = isinstance(kind, str) and urlsplit(kind).scheme in ("http", "https")
    require(absolute, f"{reply}: type is {kind!r}, not absolute")
    require(isinstance(problem.get("title"), str), f"{reply}: there is no title")
    require(problem.get("status") == status, f"{reply}: the document's status is {problem.get('status')!r}")
    if slug is not None:
        require(str(kind).rstrip("/").endswith(f"/{slug}"), f"{reply}: type does not end with /{slug}")
    return problem


def _encoded() -> bytes:
    return json.dumps(sample_order()).encode()
