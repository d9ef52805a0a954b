"""Commands told over REST: alone, or many in one request, each with an answer of its own as if told alone.

One that is refused, or is not valid, never fails its neighbours. Refuses a batch as a whole only where it is
no batch.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import orjson
from fastapi import Depends, FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import Headers

from servicekit.auth import Authenticator
from servicekit.problems import Catalogue
from servicekit.shortcut import add_shortcut
from servicekit.web import BEARER, answers, as_problem, invalid_body

log = logging.getLogger(__name__)

C = TypeVar("C", bound=BaseModel)
R = TypeVar("R")

MAX_ITEMS = 100
MAX_BYTES = 1024 * 1024
# A batch of 100 invalid commands is to be answered within MAX_BYTES, too.
MAX_ERRORS = 10
BATCH = "/batch"
ERRORS = (
    *("bad-request", "malformed-json", "unauthorized", "forbidden", "request-timeout", "content-too-large"),
    *("unsupported-media-type", "validation-error", "overloaded", "storage-unavailable"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one command: its status, and its body as plain JSON values."""

    status: int
    body: Mapping[str, Any]

    def response(self) -> Response:
        """The answer to a command that was told alone."""
        return Response(orjson.dumps(self.body), self.status, media_type="application/json")


class Batch(BaseModel):
    """Commands in order, each as it would be told alone."""

    items: Annotated[list[Any], Field(min_length=1, max_length=MAX_ITEMS)]


class ItemAnswer(BaseModel):
    """What one command would have been answered alone: its status, and its body or its problem."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"status": 201, "body": {"order_id": "019a5c3e-7c1b-7f3a-9d55-0c8f4e2b1a00"}}
        }
    )

    status: int
    body: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


class BatchAnswer(BaseModel):
    """One answer for each command, in order."""

    results: list[ItemAnswer]


@dataclass(frozen=True)
class Commands(Generic[C, R]):
    """Commands of one kind, told at `path`, or together at `path/batch`; idempotent.

    `carry_out` gives one result or error for each command, in order; `answer` says what that is answered
    with, or raises. `operation_ids` are those of the two routes, `problems` the service's own problem types.
    """

    path: str
    command: type[C]
    reply: type[BaseModel]
    operation_ids: tuple[str, str]
    description: str
    carry_out: Callable[[Sequence[C]], Awaitable[Sequence[R | Exception]]]
    answer: Callable[[R | Exception], Answer]
    problems: Sequence[str] = ()
    deprecated: bool = False


def add_command_routes(
    app: FastAPI, commands: Commands[C, R], catalogue: Catalogue, auth: Authenticator, role: str
) -> None:
    """Add both routes, for callers of that role."""
    model, (alone, together) = commands.command, commands.operation_ids
    known = TypeAdapter(list[model])  # type: ignore[valid-type]  # made at run time
    route: dict[str, Any] = {
        "dependencies": [Depends(auth.require(role))],
        "openapi_extra": BEARER,
        "deprecated": commands.deprecated or None,
    }

    @app.post(
        commands.path,
        operation_id=alone,
        name=alone,
        description=commands.description,
        status_code=201,
        response_model=commands.reply,
        responses={
            200: {"model": commands.reply, "description": "Repeated: the stored outcome"},
            **answers(catalogue, *ERRORS, *commands.problems),
        },
        **route,
    )
    async def tell(command: model) -> Response:  # type: ignore[valid-type]
        (result,) = await commands.carry_out([command])
        return commands.answer(result).response()

    @app.post(
        f"{commands.path}{BATCH}",
        operation_id=together,
        name=together,
        description=f"Up to {MAX_ITEMS} commands, each answered as by `POST {commands.path}` alone.",
        response_model=BatchAnswer,
        responses=answers(catalogue, *ERRORS),
        **route,
    )
    async def tell_all(batch: Batch) -> Response:
        return await answer_all(_read(known, model, batch.items))

    async def answer_all(read: Sequence[C | Exception]) -> Response:
        results = await _carried_out(commands, read)
        told = [_told(commands, result, catalogue) for result in results]
        return Response(orjson.dumps({"results": told}), media_type="application/json")

    class Many(BaseModel):
        items: Annotated[list[model], Field(min_length=1, max_length=MAX_ITEMS)]  # type: ignore[valid-type]

    async def take(headers: Headers, query: bytes, body: bytes) -> Response | None:
        auth.admit(headers.get("authorization"), (role,))
        try:
            command = model.model_validate_json(body)
        except ValidationError:
            return None
        (result,) = await commands.carry_out([command])
        return commands.answer(result).response()

    async def take_all(headers: Headers, query: bytes, body: bytes) -> Response | None:
        auth.admit(headers.get("authorization"), (role,))
        try:
            read = Many.model_validate_json(body).items
        except ValidationError:
            return None
        return await answer_all(read)

    add_shortcut(app, alone, take)
    add_shortcut(app, together, take_all)


def _read(known: TypeAdapter[list[C]], command: type[C], items: Sequence[Any]) -> list[C | Exception]:
    try:
        return list(known.validate_python(items))
    except ValidationError:
        return [_read_one(command, item) for item in items]


def _read_one(command: type[C], item: Any) -> C | Exception:
    try:
        return command.model_validate(item)
    except ValidationError as exc:
        return exc


async def _carried_out(commands: Commands[C, R], read: Sequence[C | Exception]) -> list[R | Exception]:
    valid = [each for each in read if not isinstance(each, Exception)]
    try:
        made = iter(await commands.carry_out(valid) if valid else [])
    except Exception as exc:  # no room, no database: each hears of it, and may be told again by itself
        made = iter([exc] * len(valid))
    return [each if isinstance(each, Exception) else next(made) for each in read]


def _told(commands: Commands[C, R], result: R | Exception, catalogue: Catalogue) -> dict[str, Any]:
    try:
        answer = commands.answer(result)
    except Exception as exc:
        problem = invalid_body(exc) if exc is result and isinstance(exc, ValidationError) else as_problem(exc)
        if problem.slug == "internal-error":
            log.error("a command could not be carried out", exc_info=exc)
        document = catalogue.document(
            problem.slug, problem.detail, problem.errors[:MAX_ERRORS], commands.path
        )
        return {"status": document["status"], "problem": document}
    return {"status": answer.status, "body": answer.body}
