"""Shortcuts past FastAPI's general machinery, for the requests of busy routes that are as they should be.

The routes themselves stay: they document the requests, and answer whatever a shortcut leaves to them. So a
shortcut may refuse as much as it likes; it must not take what its route would refuse.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servicekit.problems import Catalogue, ProblemError

log = logging.getLogger(__name__)

Take = Callable[[Headers, bytes, bytes], Awaitable[Response | None]]
"""Answers a request by its headers, query string and body, or raises; None leaves it to the route."""


@dataclass(frozen=True)
class _Shortcut:
    route: APIRoute
    take: Take


class Shortcuts:
    """ASGI middleware, inside of `servicekit.limits.BodyLimit`, which brings each body as a whole.

    `as_problem` says what an error is answered with.
    """

    def __init__(
        self,
        app: ASGIApp,
        catalogue: Catalogue,
        taken: dict[tuple[str, str], _Shortcut],
        as_problem: Callable[[Exception], ProblemError],
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._taken = taken
        self._as_problem = as_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        shortcut = self._taken.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if shortcut is None or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        message = await receive()
        if message["type"] != "http.request" or message.get("more_body", False):
            await self._app(scope, _after(message, receive), send)
            return
        try:
            response = await shortcut.take(
                Headers(scope=scope), scope["query_string"], message.get("body", b"")
            )
        except Exception as exc:
            response = self._answer(exc, scope["path"])
        if response is None:
            await self._app(scope, _after(message, receive), send)
            return
        scope["route"] = shortcut.route  # for the metrics
        await response(scope, receive, send)

    def _answer(self, exc: Exception, path: str) -> Response:
        problem = self._as_problem(exc)
        if problem.slug == "internal-error":
            log.error("a request could not be answered", exc_info=exc)
        return self._catalogue.response(problem, path)


def add_shortcut(app: FastAPI, operation_id: str, take: Take) -> None:
    """Have that operation's good requests taken. Raises ValueError if there is no such route."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.operation_id == operation_id:
            for method in route.methods or ():
                app.state.shortcuts[method, route.path] = _Shortcut(route, take)
            return
    raise ValueError(f"no route has the operation id {operation_id}")


def _after(message: Message, receive: Receive) -> Receive:
    told = [message]

    async def again() -> Message:
        return told.pop() if told else await receive()

    return again
