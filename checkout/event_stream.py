"""`GET /checkouts/{order_id}/events`: an order's progress as server-sent events (WHATWG HTML, 9.2).

Each event is the whole representation; its id is the order's version, so a client that reconnects with
`Last-Event-ID` misses nothing. After the final event a reconnection gets 204, which ends the browser's tries.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from checkout.deps import Deps, OrderId, find_order
from checkout.orders import Order, Progress
from checkout.schemas import EXAMPLE, represent, to_json
from servicekit.auth import Caller
from servicekit.problems import ProblemError
from servicekit.web import OPTIONAL_BEARER, answers

HEARTBEAT_S = 15.0
RECONNECT_MS = 1_000
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "One event of the stream.",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "final"]},
        "id": {"type": "string", "description": "The order's version."},
        "data": {"type": "string", "description": "The representation, as JSON."},
        "retry": {"type": "integer", "description": "Milliseconds until a reconnection."},
    },
}


def add_event_stream(app: FastAPI, deps: Deps) -> None:
    """Add the route."""
    open_streams = _Streams(deps)
    caller_of = deps.auth.require("caller", "operator")
    documented: dict[int | str, dict[str, Any]] = {
        200: {
            "description": "A stream of events `progress`, the last one `final`; data: the representation",
            "content": {
                "text/event-stream": {
                    "schema": EVENT_SCHEMA,
                    "example": f"event: final\nid: 2\ndata: {to_json(EXAMPLE).decode()}\n\n",
                }
            },
        },
        204: {"description": "The client has seen the final event already"},
        **answers(
            deps.catalogue,
            *("bad-request", "unauthorized", "forbidden", "not-found", "validation-error"),
            *("overloaded", "too-many-streams", "storage-unavailable"),
        ),
    }

    @app.get(
        "/checkouts/{order_id}/events",
        operation_id="follow_order",
        response_class=Response,
        responses=documented,
        openapi_extra=OPTIONAL_BEARER,
    )
    async def follow_order(
        order_id: OrderId,
        caller: Annotated[Caller, Depends(caller_of)],
        last_event_id: Annotated[
            str | None, Header(alias="Last-Event-ID", description="The id of the last event seen.")
        ] = None,
    ) -> Response:
        """Follow one order until its steps are final."""
        order, progress = await find_order(deps, order_id, caller)
        seen = (
            int(last_event_id[:10])
            if last_event_id and last_event_id.isascii() and last_event_id.isdigit()
            else 0
        )
        if progress.is_final and seen == progress.version:
            return Response(status_code=204)
        return _EventStream(open_streams, order, seen)


class _Streams:
    """The open streams of this process, and how many there may be."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one more stream. Raises ProblemError("too-many-streams") if there is none."""
        limit = self._deps.settings.max_event_streams
        if self._open >= limit:
            raise ProblemError("too-many-streams", f"{limit} streams are open.", headers={"Retry-After": "5"})
        self._open += 1
        self._deps.order_metrics.streams.inc()
        try:
            yield
        finally:
            self._open -= 1
            self._deps.order_metrics.streams.dec()

    async def events(self, order: Order, seen: int) -> AsyncIterator[bytes]:
        """Every change after version `seen`, heartbeats in between, and the end at the final one."""
        with self._deps.watchers.watching(order.order_id) as watch:
            _, progress = await self._deps.journal.get(order.order_id)
            watch.tell(progress)
            yield format_sse_event(retry=RECONNECT_MS)
            while True:
                assert watch.progress is not None
                progress = watch.progress
                if progress.version != seen:  # less, if what was told could not be written
                    seen = progress.version
                    yield _event(order, progress)
                if progress.is_final or watch.closed:
                    return
                if not await watch.change(HEARTBEAT_S):
                    yield format_sse_event(comment="still here")


class _EventStream(EventSourceResponse):
    """Holds its place for exactly as long as it is being sent."""

    def __init__(self, streams: _Streams, order: Order, seen: int) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(streams.events(order, seen), headers=headers)
        self._streams = streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Raises ProblemError("too-many-streams") before anything is sent."""
        with self._streams.place():
            await super().__call__(scope, receive, send)


def _event(order: Order, progress: Progress) -> bytes:
    return format_sse_event(
        event="final" if progress.is_final else "progress",
        id=str(progress.version),
        data_str=to_json(represent(order, progress)).decode(),
    )
