"""A service's events as an AsyncAPI 3 document, made from the pydantic models that it reads and writes.

Every message is a CloudEvent (structured JSON) on one subject of NATS. The document says what a service sends
and receives; it refuses to say where the broker is, which is the operator's to choose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from servicekit.cloudevents import CloudEvent
from servicekit.reports import DEAD_LETTERED, OUTCOME_REPORTED, dead_letter_channel, outcome_channel

MEDIA_TYPE = "application/cloudevents+json"
KEY = "The event's subject, or its place in the stream if that cannot be read."
_MODES: dict[str, JsonSchemaMode] = {"send": "serialization", "receive": "validation"}
R = TypeVar("R", bound=BaseModel)


class OutcomeReported(BaseModel, Generic[R]):
    """What a participant has made of one event; `attempts` are its tries."""

    status: Literal["succeeded", "skipped", "failed"]
    result: R | None = Field(description="Given if and only if the status is `succeeded`.")
    reason: str | None = Field(description="Why it was skipped or has failed; else null.")
    attempts: int


class DeadLettered(BaseModel):
    """An event that a participant has given up: it waits for the operator."""

    participant: str
    key: str = Field(description=KEY)
    readable: bool
    reason: str
    errors: int = Field(description="How often it was tried.")
    sequence: int = Field(description="Its place in the stream.")
    event: str = Field(description="The event as it came, as text.")


@dataclass(frozen=True)
class Flow:
    """One kind of event, on one subject, that the service sends or receives.

    `parameters` describes the `{names}` in the subject, `data` is the model of the event's own data.
    """

    action: Literal["send", "receive"]
    event: str
    subject: str
    stream: str
    summary: str
    data: type[BaseModel]
    parameters: Mapping[str, str] = field(default_factory=dict)


def document_of(title: str, description: str, flows: Sequence[Flow]) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of a service with these flows."""
    refs, schemas = _schemas(flows)
    names = [flow.event.rpartition(".")[2] for flow in flows]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": "1", "description": description},
        "defaultContentType": MEDIA_TYPE,
        "channels": {name: _channel(name, flow) for name, flow in zip(names, flows, strict=True)},
        "operations": {
            f"{flow.action}{name}": {
                "action": flow.action,
                "summary": flow.summary,
                "channel": {"$ref": f"#/channels/{name}"},
                "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
            }
            for name, flow in zip(names, flows, strict=True)
        },
        "components": {
            "messages": {
                name: {"name": flow.event, "contentType": MEDIA_TYPE, "payload": ref}
                for name, flow, ref in zip(names, flows, refs, strict=True)
            },
            "schemas": schemas,
        },
    }


def participant_document(
    title: str, description: str, name: str, heard: Flow, result: type[BaseModel]
) -> dict[str, Any]:
    """The document of a service that takes part as `name`: it hears one kind of event, and tells of each."""
    told = Flow(
        "send",
        OUTCOME_REPORTED,
        outcome_channel(name),
        "OUTCOMES",
        "What has become of an event; told again whenever the event comes again.",
        OutcomeReported[result],  # type: ignore[valid-type]  # the model is chosen at run time
    )
    given_up = Flow(
        "send",
        DEAD_LETTERED,
        dead_letter_channel(name, "{key}"),
        "DEAD_LETTERS",
        "An event that was given up; of each key only the last is kept.",
        DeadLettered,
        {"key": KEY},
    )
    return document_of(title, description, [heard, told, given_up])


def _schemas(flows: Sequence[Flow]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The reference to each flow's message, and all schemas by name."""
    wanted = [(CloudEvent[flow.data], _MODES[flow.action]) for flow in flows]  # type: ignore[name-defined]  # the model is chosen at run time
    refs, generated = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    schemas = generated["$defs"]
    messages = [refs[each] for each in wanted]
    for flow, message in zip(flows, messages, strict=True):
        schemas[message["$ref"].rpartition("/")[2]]["properties"]["type"] = {"const": flow.event}
    return messages, schemas


def _channel(name: str, flow: Flow) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": flow.subject,
        "description": f"A subject of the JetStream stream {flow.stream}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }
    if flow.parameters:
        channel["parameters"] = {key: {"description": text} for key, text in flow.parameters.items()}
    return channel
