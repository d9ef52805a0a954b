"""A shortcut past FastAPI's general machinery for the requests of one busy route that are as they should be.

The route itself stays: it documents the request, and answers whatever the shortcut leaves to it. So the
shortcut may refuse as much as it likes; it must not take what the route would refuse.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

Take = Callable[[Headers, bytes, bytes], Awaitable[Response | None]]
"""Answers a request by its headers, query string and body, or raises; None leaves it to the route."""


class _Shortcut(BaseRoute):
    def __init__(self, route: APIRoute, take: Take) -> None:
        self._route = route
        self._take = take

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Only the route's own method and path, without parameters in it."""
        is_it = (
            scope["type"] == "http"
            and scope["path"] == self._route.path
            and scope["method"] in (self._route.methods or ())
            and not scope.get("root_path")
        )
        return (Match.FULL, {"endpoint": self._route.endpoint}) if is_it else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, for a body that is there as a whole (`servicekit.limits.BodyLimit` has seen to it)."""
        scope["route"] = self._route  # for the metrics
        message = await receive()
        response = None
        if message["type"] == "http.request" and not message.get("more_body", False):
            response = await self._take(Headers(scope=scope), scope["query_string"], message.get("body", b""))
        if response is not None:
            await response(scope, receive, send)
            return
        _, matched = self._route.matches(scope)
        scope.update(matched)
        await self._route.handle(scope, _after(message, receive), send)


def add_shortcut(app: FastAPI, operation_id: str, take: Take) -> None:
    """Put a shortcut before the route of that operation. Raises ValueError if there is no such route."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.operation_id == operation_id:
            app.router.routes.insert(0, _Shortcut(route, take))
            return
    raise ValueError(f"no route has the operation id {operation_id}")


def _after(message: Message, receive: Receive) -> Receive:
    told = [message]

    async def again() -> Message:
        return told.pop() if told else await receive()

    return again
