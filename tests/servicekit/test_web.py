"""What every service has in common, on one with no business: problems, health, documents."""

import asyncio
import base64
import contextlib

import httpx
import orjson
import pytest
from fastapi import FastAPI, HTTPException
from hypothesis import given
from hypothesis import strategies as st

from servicekit.batching import BatcherClosedError, QueueFullError
from servicekit.db import StorageUnavailableError
from servicekit.paging import BadCursorError, decode_cursor, encode_cursor
from servicekit.problems import COMMON, Catalogue, ProblemError
from servicekit.web import Health, answers
from tests.servicekit.conftest import OWN, client_of, create_app, fine


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (ProblemError("out-of-tea", "Empty."), 409, "out-of-tea"),
        (StorageUnavailableError("secret path"), 503, "storage-unavailable"),
        (QueueFullError(), 503, "overloaded"),
        (BatcherClosedError(), 503, "overloaded"),
        (BadCursorError(), 422, "validation-error"),
        (HTTPException(404), 404, "not-found"),
        (HTTPException(405), 405, "method-not-allowed"),
        (HTTPException(400, "odd"), 400, "bad-request"),
        (HTTPException(418), 500, "internal-error"),
        (RuntimeError("secret"), 500, "internal-error"),
    ],
)
async def test_every_error_becomes_a_problem(app: FastAPI, error: Exception, status: int, slug: str) -> None:
    @app.get("/fails")
    async def fails() -> None:
        raise error

    async with client_of(app) as client:
        reply = await client.get("/fails")
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json()
    assert document["type"] == f"http://kettle.test/problems/kettle/{slug}"
    assert (document["status"], document["instance"]) == (status, "/fails")
    assert document["title"]
    assert "secret" not in reply.text
    assert ("retry-after" in reply.headers) == (status == 503)


@pytest.mark.parametrize("slug", [*COMMON, *OWN])
async def test_every_problem_type_has_a_page_at_its_address(client: httpx.AsyncClient, slug: str) -> None:
    uri = Catalogue("kettle", "http://kettle.test", OWN).uri(slug)
    page = await client.get(uri)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert slug in page.text
    assert "<tea>" not in page.text


async def test_there_is_no_page_for_what_is_no_problem_type(client: httpx.AsyncClient) -> None:
    for path in ("/problems/kettle/x", "/problems/other/not-found", "/problems/kettle"):
        assert (await client.get(path)).status_code == 404


def test_the_documented_answers_have_an_example_each() -> None:
    catalogue = Catalogue("kettle", "http://kettle.test", OWN)
    responses = answers(catalogue, "bad-request", "malformed-json", "out-of-tea")
    assert set(responses) == {400, 409}
    examples = responses[400]["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"bad-request", "malformed-json"}
    assert examples["bad-request"]["value"]["status"] == 400


async def test_readiness_asks_but_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.web.READY_TIMEOUT_S", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise OSError("no disk")

    for check, status in ((fine, 200), (hang, 503), (fail, 503)):
        async with client_of(create_app(Health(check=check))) as client:
            assert (await client.get("/readyz")).status_code == status
            assert (await client.get("/healthz")).status_code == 200


async def test_a_draining_service_is_unready_and_says_so_to_all_who_wait() -> None:
    told: list[int] = []
    health = Health(check=fine, on_drain=[lambda: told.append(1), lambda: told.append(2)])
    async with client_of(create_app(health)) as client:
        health.drain()
        reply = await client.get("/readyz")
    assert (reply.status_code, reply.text, told) == (503, "shutting down", [1, 2])


async def test_the_document_has_no_schema_of_fastapis_own_errors(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert "Problem" in document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


async def test_a_slash_too_many_is_not_found_rather_than_redirected(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz/")).status_code == 404


async def test_a_body_at_fault_is_named_by_pointer_and_a_parameter_by_name(app: FastAPI) -> None:
    @app.get("/pour")
    async def pour(cups: int) -> int:
        return cups

    async with client_of(app) as client:
        body = (await client.post("/cups", json={"size": "x"})).json()
        query = (await client.get("/pour?cups=x")).json()
    assert [error["pointer"] for error in body["errors"]] == ["#/size"]
    assert [error["parameter"] for error in query["errors"]] == ["cups"]


@given(number=st.integers(0, 2**63 - 1), text=st.text(max_size=50).filter(str.isprintable))
def test_a_cursor_comes_back_as_the_position_it_was_made_from(number: int, text: str) -> None:
    assert decode_cursor(encode_cursor(number), int) == number
    assert decode_cursor(encode_cursor(text), str) == text
    assert encode_cursor(text).replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=40))
def test_whatever_else_is_sent_as_a_cursor_is_refused_or_harmless(cursor: str) -> None:
    with contextlib.suppress(BadCursorError):
        assert 0 <= decode_cursor(cursor, int) < 2**63
    with contextlib.suppress(BadCursorError):
        assert isinstance(decode_cursor(cursor, str), str)


@pytest.mark.parametrize("position", [-1, 2**63, True, False, None, [], 1.5, "x"])
def test_a_cursor_of_another_kind_is_refused(position: object) -> None:
    cursor = base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")
    with pytest.raises(BadCursorError):
        decode_cursor(cursor, int)
