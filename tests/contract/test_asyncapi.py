"""The AsyncAPI documents: valid, true of the golden messages, served, and kept in docs/."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from asyncapi3.models.asyncapi import AsyncAPI3
from jsonschema import Draft7Validator, FormatChecker
from pydantic import ValidationError

from lab.asyncapi_pages import FOLDER, pages
from tests.api.apps import ROOT, open_app
from tests.contract.test_events import GOLDEN, PARTICIPANTS, TIME

NAMES = ["checkout", *PARTICIPANTS]
DOCUMENTS: dict[str, dict[str, Any]] = {
    name: orjson.loads(text) for name, text in ((Path(file).stem, text) for file, text in pages().items())
}
# Which golden messages travel on a service's channel, as the channel's message is named.
MESSAGES = [
    ("checkout", "OrderCreated", "order_created.event.json"),
    *[("checkout", "OutcomeReported", path.name) for path in sorted(GOLDEN.glob("outcome.*.json"))],
    *[(name, "OrderCreated", "order_created.event.json") for name in PARTICIPANTS],
    *[
        (path.name.split(".")[1], "OutcomeReported", path.name)
        for path in sorted(GOLDEN.glob("outcome.*.json"))
    ],
    *[(name, "DeadLettered", f"dead_letter.{name}.json") for name in PARTICIPANTS],
]


def refs(node: Any) -> Iterator[str]:
    """Every reference in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def resolve(document: Any, ref: str) -> Any:
    """What a reference within the document points at; KeyError if at nothing."""
    node = document
    for step in ref.removeprefix("#/").split("/"):
        node = node[step]
    return node


@pytest.mark.parametrize("name", NAMES)
def test_a_document_is_valid(name: str) -> None:
    document = DOCUMENTS[name]
    AsyncAPI3.model_validate(document)
    for ref in refs(document):
        resolve(document, ref)
    for schema in document["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


def test_the_check_sees_what_the_specification_does_not_know() -> None:
    document = orjson.loads(orjson.dumps(DOCUMENTS["email"]))
    document["operations"]["sendOutcomeReported"]["action"] = "publish"
    with pytest.raises(ValidationError, match="action"):
        AsyncAPI3.model_validate(document)


@pytest.mark.parametrize(("name", "message", "file"), MESSAGES)
def test_a_golden_message_is_what_the_document_describes(name: str, message: str, file: str) -> None:
    document = DOCUMENTS[name]
    payload = document["components"]["messages"][message]["payload"]
    validator = Draft7Validator({**document, **payload}, format_checker=FormatChecker())
    event = orjson.loads((GOLDEN / file).read_bytes()) | {"time": TIME}
    assert [error.message for error in validator.iter_errors(event)] == []
    assert list(validator.iter_errors({**event, "type": "duet.SomethingElse"}))
    assert list(validator.iter_errors({**event, "data": {}}))


def test_who_sends_and_who_receives_agree_on_where() -> None:
    addresses = {
        (name, operation["action"], resolve(document, operation["channel"]["$ref"])["address"])
        for name, document in DOCUMENTS.items()
        for operation in document["operations"].values()
    }
    assert addresses == {
        ("checkout", "send", "orders.created"),
        ("checkout", "receive", "outcomes.{participant}"),
        *((name, "receive", "orders.created") for name in PARTICIPANTS),
        *((name, "send", f"outcomes.{name}") for name in PARTICIPANTS),
        *((name, "send", f"dead_letters.{name}.{{key}}") for name in PARTICIPANTS),
    }


@pytest.mark.parametrize("name", NAMES)
async def test_a_service_serves_its_document_and_its_page_links_to_it(name: str, tmp_path: Path) -> None:
    async with open_app(name, tmp_path) as app:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{name}.test") as client:
            served = await client.get("/asyncapi")
            openapi = await client.get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.json() == DOCUMENTS[name]
    assert "(/asyncapi)" in openapi.json()["info"]["description"]


def test_the_documents_in_docs_are_the_services_own() -> None:
    """To write them anew: `python -m lab.asyncapi_pages`."""
    assert {path.name: path.read_text() for path in (ROOT / FOLDER).iterdir()} == pages()
