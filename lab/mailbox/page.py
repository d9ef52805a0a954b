"""The mailbox's page and its JSON, for people and for tests.

The HTML of a mail is hostile: it is served alone, under a policy that allows no script and no request, and
shown in a sandboxed frame. Only requests by a loopback name are answered, so that no web page elsewhere can
read the mail through a name that it points here.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lab.mailbox.store import Entry, MailStore, headers_of, text_of

SHOWN = 100
MOST_LISTED = 1000
TEMPLATES = Path(__file__).parent / "templates"
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
MAIL_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
CAUTION = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def create_app(store: MailStore, is_ready: Callable[[], bool], hosts: list[str]) -> Starlette:
    """The page over a store; `is_ready` tells whether mail is taken, `hosts` are the names answered to."""

    def index(request: Request) -> Response:
        count, entries = store.newest(SHOWN)
        return _page("index.html", count=count, entries=entries)

    def message(request: Request) -> Response:
        found = store.read(request.path_params["id"])
        if found is None:
            return _page("missing.html", status_code=404)
        entry, mail = found
        plain, html = text_of(mail, "plain"), text_of(mail, "html")
        return _page("message.html", entry=entry, headers=list(headers_of(mail)), plain=plain, html=html)

    def message_html(request: Request) -> Response:
        found = store.read(request.path_params["id"])
        html = text_of(found[1], "html") if found else None
        headers = CAUTION | {"Content-Security-Policy": MAIL_POLICY}
        return HTMLResponse(html or "", status_code=404 if html is None else 200, headers=headers)

    def api_messages(request: Request) -> Response:
        query = request.query_params
        try:
            limit = min(max(int(query.get("limit", SHOWN)), 0), MOST_LISTED)
        except ValueError:
            return JSONResponse({"error": "limit is a number"}, status_code=400)
        count, entries = store.newest(limit, query.get("to"), query.get("order"))
        return JSONResponse({"count": count, "messages": [_summary(entry) for entry in entries]})

    def api_message(request: Request) -> Response:
        found = store.read(request.path_params["id"])
        if found is None:
            return JSONResponse({"error": "no such message"}, status_code=404)
        entry, mail = found
        parts = {"text": text_of(mail, "plain"), "html": text_of(mail, "html")}
        return JSONResponse(_summary(entry) | {"headers": list(headers_of(mail))} | parts)

    def readyz(request: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", 503)

    routes = [
        Route("/", index),
        Route("/messages/{id}", message),
        Route("/messages/{id}/html", message_html),
        Route("/api/messages", api_messages),
        Route("/api/messages/{id}", api_message),
        Route("/style.css", _style),
        Route("/healthz", _healthz),
        Route("/readyz", readyz),
    ]
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)])


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("alive\n")


def _style(request: Request) -> Response:
    return Response((TEMPLATES / "style.css").read_text(), media_type="text/css")


def _summary(entry: Entry) -> dict[str, Any]:
    told = asdict(entry)
    return {"id": told.pop("id"), "message_id": told.pop("message_id"), "from": told.pop("sender"), **told}


def _page(template: str, status_code: int = 200, **shown: Any) -> Response:
    html = _templates().get_template(template).render(**shown)
    headers = CAUTION | {"Content-Security-Policy": PAGE_POLICY}
    return HTMLResponse(html, status_code=status_code, headers=headers)


@cache
def _templates() -> Any:
    """Loaded with the first page, since most runs are never looked at."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
