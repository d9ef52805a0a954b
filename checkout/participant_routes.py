"""Told by the operator: who takes part in choreographed orders, and who no longer does."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Response

from checkout.deps import Deps
from checkout.participants import NAME, Participant, UnknownParticipantError
from checkout.schemas import ParticipantList, ParticipantView, to_json
from servicekit.problems import ProblemError
from servicekit.web import BEARER, answers


def add_participant_routes(app: FastAPI, deps: Deps) -> None:
    """Add the routes; they want the operator's token."""
    operator: dict[str, Any] = {
        "dependencies": [Depends(deps.auth.require("operator"))],
        "openapi_extra": BEARER,
        "response_class": Response,
    }
    common = ("bad-request", "unauthorized", "forbidden", "overloaded", "storage-unavailable")

    @app.get(
        "/participants",
        operation_id="list_participants",
        responses={
            200: {"model": ParticipantList, "description": "All that have ever taken part, by name"},
            **answers(deps.catalogue, *common),
        },
        **operator,
    )
    async def list_participants() -> Response:
        """Who takes part in choreographed orders, and who has retired."""
        return _json({"participants": [_represent(each) for each in deps.participants.everybody()]})

    @app.post(
        "/participants/{name}/retire",
        operation_id="retire_participant",
        responses={
            200: {"model": ParticipantView, "description": "No order waits for it any more"},
            **answers(
                deps.catalogue,
                *common,
                *("validation-error", "not-found", "content-too-large", "request-timeout"),
                "unsupported-media-type",
            ),
        },
        **operator,
    )
    async def retire_participant(name: Annotated[str, Path(pattern=NAME)]) -> Response:
        """Await it no more: its pending steps are skipped. It joins again only by a new durable."""
        try:
            return _json(_represent(await deps.participants.retire(name)))
        except UnknownParticipantError:
            raise ProblemError("not-found", "Nobody of that name has ever taken part.") from None


def _represent(participant: Participant) -> dict[str, Any]:
    return {
        "name": participant.name,
        "joined_at": participant.joined_at,
        "retired_at": participant.retired_at,
    }


def _json(document: object) -> Response:
    return Response(to_json(document), media_type="application/json")
