"""What every REST service of the system has in common: problems, health, metrics, bounds, offline docs.

`create_service_app` gives a FastAPI application with all of that, and no route of the service's own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Match, Route

from servicekit.batching import BatcherClosedError, QueueFullError
from servicekit.db import StorageUnavailableError
from servicekit.limits import BodyLimit, RequestLimit
from servicekit.metrics import Metrics, RequestMetrics
from servicekit.paging import BadCursorError
from servicekit.problems import MEDIA_TYPE, Catalogue, ProblemError, RuleError
from servicekit.settings import ServiceSettings
from servicekit.shortcut import Shortcuts
from servicekit.simulation import SimulatedTroubleError

log = logging.getLogger("servicekit.web")

READY_TIMEOUT_S = 2.0
MAX_ERRORS = 100
MAX_POINTER = 200
BEARER: dict[str, Any] = {"security": [{"bearer": []}]}
"""Give it to a route as `openapi_extra`: the document then says that the route wants a token."""
OPTIONAL_BEARER: dict[str, Any] = {"security": [{}, {"bearer": []}]}
"""The same for a route that may be open, if the service's settings say so."""


class NotReadyError(Exception):
    """Something other than the database is missing; the message says what."""


@dataclass
class Health:
    """Whether the service may be sent work. `check` raises if something that it needs is missing."""

    check: Callable[[], Awaitable[object]]
    draining: bool = False
    on_drain: list[Callable[[], None]] = field(default_factory=list)

    def drain(self) -> None:
        """Go unready for good, and tell those who wait."""
        self.draining = True
        for tell in self.on_drain:
            tell()

    async def problem(self) -> str | None:
        """Why the service is not ready; None if it is."""
        if self.draining:
            return "shutting down"
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self.check()
        except NotReadyError as exc:
            return str(exc)
        except Exception as exc:  # whatever is missing, the answer is "not ready"; the log says more
            log.warning("not ready", extra={"error": str(exc) or type(exc).__name__})
            return "the database is not available"
        return None


def create_service_app(
    *,
    title: str,
    description: str,
    version: str,
    catalogue: Catalogue,
    metrics: Metrics,
    health: Health,
    settings: ServiceSettings,
    asyncapi: Callable[[], Mapping[str, Any]] | None = None,
    max_body_bytes_at: Mapping[str, int] = MappingProxyType({}),
) -> FastAPI:
    """A FastAPI application with the common routes and bounds; it needs no lifespan.

    `asyncapi` makes the document that is served at /asyncapi, when it is first asked for;
    `max_body_bytes_at` are the paths that take larger bodies than the others.
    """
    # No redirects for a slash too many: they would name whatever host the client claimed.
    app = FastAPIOffline(
        title=title, description=description, version=version, redoc_url=None, redirect_slashes=False
    )
    _answer_with_problems(app, catalogue)
    _add_common_routes(app, catalogue, metrics, health)
    if asyncapi is not None:
        _add_event_document(app, asyncapi)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    app.state.shortcuts = {}
    app.add_middleware(Shortcuts, catalogue=catalogue, taken=app.state.shortcuts, as_problem=as_problem)
    app.add_middleware(RequestLimit, catalogue=catalogue, max_requests=settings.max_requests)
    app.add_middleware(
        BodyLimit,
        catalogue=catalogue,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        max_bytes_at=max_body_bytes_at,
    )
    app.add_middleware(RequestLimit, catalogue=catalogue, max_requests=settings.max_connections)
    app.add_middleware(RequestMetrics, metrics=metrics)
    return app


def answers(catalogue: Catalogue, *slugs: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: each problem that it can answer with, with an example."""
    responses: dict[int | str, dict[str, Any]] = {}
    for slug in slugs:
        kind = catalogue.types[slug]
        response = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        response["content"][MEDIA_TYPE]["examples"][slug] = {"value": catalogue.document(slug, kind.advice)}
    return responses


def _answer_with_problems(app: FastAPI, catalogue: Catalogue) -> None:
    def answer(request: Request, problem: ProblemError) -> Response:
        return catalogue.response(problem, request.url.path)

    @app.exception_handler(ProblemError)
    @app.exception_handler(RuleError)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(StorageUnavailableError)
    @app.exception_handler(QueueFullError)
    @app.exception_handler(BatcherClosedError)
    @app.exception_handler(SimulatedTroubleError)
    @app.exception_handler(Exception)
    async def _(request: Request, exc: Exception) -> Response:
        return answer(request, as_problem(exc))

    @app.exception_handler(BadCursorError)
    async def _(request: Request, exc: BadCursorError) -> Response:
        errors = [{"detail": "not a cursor that this service gave out", "parameter": "cursor"}]
        return answer(request, ProblemError("validation-error", "The cursor is not valid.", errors=errors))

    @app.exception_handler(HTTPException)
    async def _(request: Request, exc: HTTPException) -> Response:
        slug = {404: "not-found", 405: "method-not-allowed", 400: "bad-request"}.get(exc.status_code)
        detail = str(exc.detail)
        headers = dict(exc.headers or {})
        if exc.status_code == 405:
            headers = {"Allow": ", ".join(_methods(app, request))}
        if slug is None:
            log.error("unforeseen HTTP error", extra={"status": exc.status_code, "detail": detail})
            slug = "internal-error"
        return answer(request, ProblemError(slug, detail, headers=headers))


def as_problem(exc: Exception) -> ProblemError:
    """The problem that an error is answered with."""
    if isinstance(exc, ProblemError):
        return exc
    if isinstance(exc, RuleError):
        return ProblemError(exc.slug, str(exc))
    if isinstance(exc, RequestValidationError):
        return _invalid(exc.errors())
    if isinstance(exc, StorageUnavailableError):
        log.warning("storage unavailable", extra={"error": str(exc)})
        return ProblemError("storage-unavailable", "The database is not available.")
    if isinstance(exc, QueueFullError | BatcherClosedError):
        return ProblemError("overloaded", "The queue for the database is full.")
    if isinstance(exc, SimulatedTroubleError):
        return ProblemError("overloaded", f"It is {exc}.")
    return ProblemError("internal-error", "The error is in the service's log.")


def _methods(app: FastAPI, request: Request) -> list[str]:
    """The methods of all routes with this path: each route by itself knows only its own."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    # The first that fits by its path is the one that the document names (`/a/lookup` before `/a/{id}`).
    path = next((route.path for route in routes if route.matches(request.scope)[0] is not Match.NONE), None)
    return sorted({name for route in routes if route.path == path for name in route.methods or ()})


def invalid_body(exc: ValidationError) -> ProblemError:
    """The problem of a body that is not as its model has it."""
    return _invalid([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()])


def _invalid(errors: Sequence[Mapping[str, Any]]) -> ProblemError:
    if any(error["type"] == "json_invalid" for error in errors):
        return ProblemError("malformed-json", "The body cannot be parsed as JSON.")
    listed = [_located(error) for error in errors[:MAX_ERRORS]]
    return ProblemError("validation-error", f"{len(errors)} things are not valid; see errors.", errors=listed)


def _located(error: Mapping[str, Any]) -> dict[str, str]:
    where, *path = error["loc"] or ("body",)
    entry = {"detail": str(error["msg"])}
    if where == "body":
        steps = (quote(str(step).replace("~", "~0").replace("/", "~1")) for step in path)
        entry["pointer"] = "#" + "".join(f"/{step}" for step in steps)[:MAX_POINTER]
    else:
        entry["header" if where == "header" else "parameter"] = "/".join(map(str, path))[:MAX_POINTER]
    return entry


def _add_common_routes(app: FastAPI, catalogue: Catalogue, metrics: Metrics, health: Health) -> None:
    @app.api_route("/healthz", methods=["GET", "HEAD"], include_in_schema=False)
    async def alive() -> Response:
        return PlainTextResponse("alive")

    @app.api_route("/readyz", methods=["GET", "HEAD"], include_in_schema=False)
    async def ready() -> Response:
        problem = await health.problem()
        return PlainTextResponse("ready") if problem is None else PlainTextResponse(problem, 503)

    @app.get("/metrics", include_in_schema=False)
    async def scrape() -> Response:
        return await metrics.scrape()

    @app.get("/problems/{service}/{slug}", include_in_schema=False)
    async def problem_page(service: str, slug: str) -> Response:
        page = catalogue.page(slug) if service == catalogue.service else None
        if page is None:
            raise ProblemError("not-found", "There is no such problem type.")
        return HTMLResponse(page)


def _add_event_document(app: FastAPI, asyncapi: Callable[[], Mapping[str, Any]]) -> None:
    app.description += " What it tells and hears by events is [an AsyncAPI document](/asyncapi)."
    document = cache(lambda: orjson.dumps(asyncapi(), option=orjson.OPT_INDENT_2))

    @app.get("/asyncapi", include_in_schema=False)
    async def event_document() -> Response:
        return Response(document(), media_type="application/json")


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = document
    return app.openapi_schema


_PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "A problem document (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["detail"],
                "properties": {
                    "detail": {"type": "string"},
                    "pointer": {"type": "string"},
                    "parameter": {"type": "string"},
                    "header": {"type": "string"},
                },
            },
        },
    },
}
