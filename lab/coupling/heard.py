"""What a service knows of events: the channels on which it tells and hears, and the schemas that it reads.

Rules, each applied to every service:

- what it may publish by its `service.toml`, JetStream's own API aside, is a channel on which it tells; a
  right to create a durable consumer is one on which it hears. A broker that denies the rest makes that
  complete. A `subject=` in a call of `Participant` is one, too, though the right be missing;
- the schema that it reads there is the `model=` of the `Participant` on that subject, else the model of its
  `Flow("receive", ...)`, else what its code takes out of a `CloudEvent[...]`;
- a schema is known of whoever tells on that channel. Where a wildcard stands for the author's name nobody in
  particular is meant: that schema is the channel's, so the broker's;
- a token of a channel that is a service's name is that name: who hears `outcomes.warehouse` names the
  warehouse.

It refuses to count one's own channel, or one's own event, as knowledge of anybody but the broker.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lab.broker_config import BrokerRights
from lab.coupling.fields import model_fields
from lab.coupling.graph import BROKER, Knows, Link
from lab.coupling.source import HOLE, Found, Module, Source, template

DURABLE = "$JS.API.CONSUMER.CREATE."
BROKER_SETTINGS = ("nats_url", "broker_url")
SETTINGS_CLASS = "Settings"
ANYBODY = frozenset("*>")

Way = Literal["tells", "hears"]


@dataclass(frozen=True)
class Channel:
    """One subject on which a service tells or hears, and the fields of the message there, as far as known.

    `model` is the class that has these fields, and `read_at` where it stands.
    """

    service: str
    way: Way
    subject: str
    stream: str = ""
    fields: tuple[str, ...] = ()
    evidence: str = ""
    model: str = ""
    read_at: str = ""


def channels_of(
    source: Source, services: Mapping[str, str], rights: Mapping[str, BrokerRights]
) -> list[Channel]:
    """Every channel of every service; `services` are names by package folder."""
    found: dict[tuple[str, Way, str], Channel] = {}
    for folder, name in services.items():
        modules = source.package(folder)
        schemas = list(_declared(source, modules))
        participants = [replace(each, service=name) for each in _participants(source, modules)]
        granted = list(_granted(source, folder, name, rights.get(name)))
        for channel in [*participants, *granted]:
            known = channel if channel.fields else _with_schema(channel, schemas)
            found.setdefault((name, known.way, known.subject), known)
    return list(found.values())


def heard(source: Source, services: Mapping[str, str], channels: Sequence[Channel]) -> Iterator[Knows | Link]:
    """What everybody knows of the broker and of each other's events, and the events on their way."""
    folders = {name: folder for folder, name in services.items()}
    for name in dict.fromkeys(channel.service for channel in channels):
        yield Knows(name, BROKER, "address", *_broker_setting(source, folders[name]))
    for channel in channels:
        where = f" of {channel.stream}" if channel.stream else ""
        detail = f"{channel.way} {channel.subject}{where}"
        yield Knows(channel.service, BROKER, "channel", detail, (), channel.evidence)
        for token in channel.subject.split("."):
            if token in folders:
                yield Knows(channel.service, token, "name", token, (), channel.evidence)
        if channel.way == "tells":
            fields = channel.fields
            yield Link("event", channel.service, BROKER, channel.subject, channel.evidence, fields=fields)
        else:
            fields = _told_on(channel, channels)
            yield Link(
                "event",
                BROKER,
                channel.service,
                channel.subject,
                channel.evidence,
                "",
                fields,
                channel.fields,
            )
            yield from _schema(channel, channels)


def dependencies(channels: Sequence[Channel]) -> Iterator[tuple[str, str]]:
    """Who tells or hears depends on the broker; who hears, on those who tell it."""
    for channel in channels:
        yield channel.service, BROKER
        if channel.way == "hears":
            yield from ((channel.service, name) for name in tellers(channel, channels))


def tellers(heard: Channel, channels: Sequence[Channel]) -> list[str]:
    """Who tells something on a channel that is heard."""
    return sorted({each.service for each in _tells(heard, channels)})


def meets(one: str, other: str) -> bool:
    """Whether some subject is meant by both, with the wildcards of NATS: `*` one token, `>` all the rest."""
    mine, yours = one.split("."), other.split(".")
    for a, b in zip(mine, yours, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(mine) == len(yours)


def _tells(heard: Channel, channels: Sequence[Channel]) -> list[Channel]:
    told = [each for each in channels if each.way == "tells" and each.service != heard.service]
    return [each for each in told if meets(heard.subject, each.subject)]


def _means_anybody(heard: Channel, channels: Sequence[Channel]) -> bool:
    """Whether a wildcard of the channel stands for the name of whoever tells on it."""
    return any(
        wanted in ANYBODY and told == each.service
        for each in _tells(heard, channels)
        for wanted, told in zip(heard.subject.split("."), each.subject.split("."), strict=False)
    )


def _told_on(heard: Channel, channels: Sequence[Channel]) -> tuple[str, ...]:
    """Everything that is told there: whoever hears is sent it whole, whatever it reads."""
    return tuple(dict.fromkeys(name for each in _tells(heard, channels) for name in each.fields))


def _schema(channel: Channel, channels: Sequence[Channel]) -> Iterator[Knows]:
    if not channel.fields:
        return
    authors = [] if _means_anybody(channel, channels) else tellers(channel, channels)
    for name in authors or [BROKER]:
        event = f"event {channel.model}"
        yield Knows(channel.service, name, "schema", event, channel.fields, channel.read_at)


def _granted(source: Source, folder: str, name: str, rights: BrokerRights | None) -> Iterator[Channel]:
    if rights is None:
        return
    file = source.root / folder / "service.toml"
    lines = file.read_text(encoding="utf-8").splitlines()
    for subject in rights.publish:
        number = next((n for n, line in enumerate(lines, 1) if f'"{subject}"' in line), 1)
        where = f"{folder}/service.toml:{number}"
        if subject.startswith(DURABLE):
            stream, _, rest = subject.removeprefix(DURABLE).partition(".")
            _, _, wanted = rest.partition(".")
            if wanted:
                yield Channel(name, "hears", wanted, stream, evidence=where)
        elif not subject.startswith("$"):
            yield Channel(name, "tells", subject, evidence=where)


def _participants(source: Source, modules: Sequence[Module]) -> Iterator[Channel]:
    """Calls that hear: those with a `subject` and a `model`."""
    for module, call in _calls(modules):
        given = {each.arg: each.value for each in call.keywords if each.arg}
        if not {"subject", "model"} <= given.keys():
            continue
        subject = source.text(module, given["subject"])
        stream = source.text(module, given["stream"]) if "stream" in given else ""
        found = source.find(module, given["model"])
        if subject is not None and found is not None:
            seen = _read(source, found, "hears", subject)
            yield replace(seen, stream=stream or "", evidence=module.at(given["subject"]))


def _declared(source: Source, modules: Sequence[Module]) -> Iterator[Channel]:
    """Flows of the AsyncAPI document, then whatever is read out of an envelope on no channel that is told."""
    for module, call in _calls(modules):
        if getattr(call.func, "id", "") == "Flow" and len(call.args) >= 6:
            action, subject = source.text(module, call.args[0]), source.text(module, call.args[2])
            found = source.find(module, call.args[5])
            if subject is not None and found is not None:
                way: Way = "hears" if action == "receive" else "tells"
                yield _read(source, found, way, template(subject).replace(HOLE, "*"))
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "CloudEvent":
                found = source.find(module, node.slice)
                yield from [] if found is None else [_read(source, found, "hears", ">")]


def _read(source: Source, found: Found, way: Way, subject: str) -> Channel:
    name = found.node.name if isinstance(found.node, ast.ClassDef) else ""
    where = found.module.at(found.node)
    return Channel("", way, subject, fields=model_fields(source, found), model=name, read_at=where)


def _with_schema(channel: Channel, schemas: Sequence[Channel]) -> Channel:
    for each in schemas:
        if each.way == channel.way and each.fields and meets(each.subject, channel.subject):
            return replace(channel, fields=each.fields, model=each.model, read_at=each.read_at)
    return channel


def _calls(modules: Sequence[Module]) -> Iterator[tuple[Module, ast.Call]]:
    for module in modules:
        yield from ((module, node) for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def _broker_setting(source: Source, folder: str) -> tuple[str, tuple[str, ...], str]:
    """Which setting holds the broker's address: one of its own, or of the settings that it inherits."""
    module = source.module(f"{folder}.settings")
    found = source.find(module, ast.Name(SETTINGS_CLASS)) if module else None
    while found is not None and isinstance(found.node, ast.ClassDef):
        for node in found.node.body:
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") in BROKER_SETTINGS:
                return f"setting {getattr(node.target, 'id', '')}", (), found.module.at(node)
        found = source.find(found.module, found.node.bases[0]) if found.node.bases else None
    return "url", (), f"{folder}/service.toml:1"
