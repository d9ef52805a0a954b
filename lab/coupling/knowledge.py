"""Who knows whom in one tree, in one style, by its code: computed from the files and never by running them.

Nodes are the services that have a `service.toml`, and in choreography the broker. Edges come from the rules
of `lab.coupling.told` (calls) and `lab.coupling.heard` (events). What counts for a style:

- the conductor is the service with a module called as the style is, `orchestration.py` or `choreography.py`.
  Of its code, what that module imports, directly or by others, counts; its settings of other services' URLs
  and tokens count for orchestration alone, because only what calls is given them;
- so do settings files of the conductor (each `*.toml` but its `service.toml`), but one that is named only in
  modules which choreography has for itself: that one is choreography's;
- of every other service all its code counts in both styles, but what is heard, and the broker, counts in
  choreography only: orchestrated orders leave them unused.

A called service knows nobody: `conductor_token` names a role. It refuses to take a service that nobody calls,
and that hears nothing, out of the picture: it is a node without edges.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.broker_config import BrokerRights, read_rights
from lab.coupling.graph import BROKER, Knowledge, Knows, Link, make_knowledge
from lab.coupling.heard import channels_of, dependencies, heard
from lab.coupling.source import Module, Source
from lab.coupling.told import Caller, Fact, Route, configured, routes_of, settings_files, told
from lab.errors import LabError
from lab.system import discover_services

ORCHESTRATION = "orchestration"
CHOREOGRAPHY = "choreography"
STYLES = (ORCHESTRATION, CHOREOGRAPHY)

__all__ = ["CHOREOGRAPHY", "ORCHESTRATION", "STYLES", "Knowledge", "knowledge"]


def knowledge(root: Path, style: str) -> Knowledge:
    """Who knows whose name, address, channel and schema in the tree at `root`.

    Raises `LabError` where there is no such style, or a file of the tree cannot be read.
    """
    if style not in STYLES:
        raise LabError(f"there is no style {style}: it is one of {', '.join(STYLES)}")
    source = Source(root.resolve())
    services = {service.package: service.name for service in discover_services(source.root)}
    routes = routes_of(source, services)
    facts: list[Fact] = []
    for folder in services:
        facts += _of_calls(source, folder, services, routes, style)
    pairs = [(each.source, each.target) for each in facts if isinstance(each, Link) and each.kind == "call"]
    nodes = list(services.values())
    if style == CHOREOGRAPHY:
        channels = channels_of(source, services, _rights(source))
        facts += heard(source, services, channels)
        pairs += dependencies(channels)
        nodes.append(BROKER)
    knows = [each for each in facts if isinstance(each, Knows)]
    links = [each for each in facts if isinstance(each, Link)]
    return make_knowledge(style, nodes, knows, links, pairs)


def _rights(source: Source) -> dict[str, BrokerRights]:
    try:
        return read_rights(source.root)
    except ValueError as error:
        raise LabError(str(error)) from error


def _of_calls(
    source: Source, folder: str, services: dict[str, str], routes: Sequence[Route], style: str
) -> Iterator[Fact]:
    name = services[folder]
    main = source.module(f"{folder}.{style}")
    conducts = any(source.module(f"{folder}.{each}") is not None for each in STYLES)
    modules = source.reached(main.name) if main is not None else [] if conducts else source.package(folder)
    caller = Caller(name, folder, modules, services, routes)
    facts = list(told(source, caller))
    for file, known in settings_files(source, caller):
        if not conducts or _style_of(source, folder, file.name) == style:
            facts += known
    yield from facts
    if style == ORCHESTRATION or not conducts:
        yield from configured(source, caller, {each.known for each in facts if isinstance(each, Knows)})


def _style_of(source: Source, folder: str, file: str) -> str:
    calling, telling = ({m.name: m for m in source.reached(f"{folder}.{each}")} for each in STYLES)
    others = [module for name, module in calling.items() if name not in telling]
    own = [module for name, module in telling.items() if name not in calling]
    return CHOREOGRAPHY if _names(own, file) and not _names(others, file) else ORCHESTRATION


def _names(modules: Sequence[Module], file: str) -> bool:
    return any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(file)
        for module in modules
        for node in ast.walk(module.tree)
    )
