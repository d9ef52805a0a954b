"""What a service knows of those that it calls: found in its code, its settings and its settings files.

Rules, each applied to every service; `folder` is its package, and `modules` are those that count:

- a field `<service>_url` or `<service>_token` of a settings class is that service's name and an address;
  where the code makes such a name out of another (`f"{name}_url"`), each service that it calls has one;
- a mapping on a module's own level, whose keys are services or whose values say where to call, is a map of
  calls: each key a name (of whom, says the key, or another text in the entry, or else who alone serves the
  path), each path an address, each function the schema of a command, each model that of a reply;
- any other text that is a path which one other service serves, and the caller does not, is an address;
- a `*.toml` of the package, `service.toml` aside: a table that names a service, by its key or in it, is its
  name; paths and URLs in it are addresses; everything else in it that is a list or a table is a schema.

Whom an order concerns is a rule, which is none of these. It refuses to take a word for a name because it
looks like one: `email` is also a field of a customer.
"""

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.coupling.fields import made_fields, model_fields
from lab.coupling.graph import Knows, Link
from lab.coupling.source import HOLE, Found, Function, Module, Source, docstrings, template
from lab.errors import LabError

METHODS = ("get", "post", "put", "patch", "delete")
SETTINGS = ("_url", "_token")
Fact = Knows | Link


@dataclass(frozen=True)
class Route:
    """One path that a service serves, holes being `{}`; `reads` are the fields of a body that it reads."""

    service: str
    method: str
    path: str
    evidence: str
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caller:
    """Who calls, and what of its code counts; `services` are all names by package folder."""

    name: str
    folder: str
    modules: Sequence[Module]
    services: Mapping[str, str]
    routes: Sequence[Route]

    @property
    def others(self) -> frozenset[str]:
        """The names of the other services."""
        return frozenset(self.services.values()) - {self.name}

    def serving(self, path: str) -> Route | None:
        """The route of another service that this path leads to; None if there is none, or more than one's."""
        found = [route for route in self.routes if route.path == template(path)]
        owners = {route.service for route in found}
        if len(owners) != 1 or self.name in owners:
            return None
        return min(found, key=lambda route: route.method != "post")


def routes_of(source: Source, services: Mapping[str, str]) -> list[Route]:
    """Every path that `@app.post("/emails")` or `Commands("/emails", Model)` serves, of all services."""
    found = []
    for folder, name in services.items():
        for module in source.package(folder):
            for node in ast.walk(module.tree):
                if isinstance(node, Function):
                    for method, path in _served(source, module, node):
                        reads = _reads(source, module, node)
                        found.append(Route(name, method, template(path), module.at(node), reads))
                elif isinstance(node, ast.Call) and (shared := _commanded(source, module, node)) is not None:
                    reads = _fields(source, module, [node.args[1]])
                    found.append(Route(name, "post", template(shared), module.at(node), reads))
    return found


def told(source: Source, caller: Caller) -> Iterator[Fact]:
    """All that the caller knows of those whom it calls, and its calls."""
    yield from _maps(source, caller)
    yield from _paths(source, caller)


def configured(source: Source, caller: Caller, called: Set[str]) -> Iterator[Knows]:
    """What its settings know: where other services are, and with which token the `called` ones are."""
    written: dict[str, str] = {}
    made: dict[str, str] = {}
    for module in source.package(caller.folder):
        for node in ast.walk(module.tree):
            match node:
                case ast.AnnAssign(target=ast.Name(id=field)) if _setting_of(caller, field):
                    written.setdefault(field, module.at(node))
                case ast.JoinedStr() if (text := source.text(module, node) or "").startswith(HOLE):
                    names = [text.replace(HOLE, name) for name in sorted(called)]
                    made |= {each: module.at(node) for each in names if _setting_of(caller, each)}
    for field, where in {**made, **written}.items():
        name = _setting_of(caller, field)
        yield Knows(caller.name, name, "name", name, (), where)
        yield Knows(caller.name, name, "address", f"setting {field}", (), where)


def settings_files(source: Source, caller: Caller) -> Iterator[tuple[Path, list[Fact]]]:
    """What each settings file of the package knows."""
    for file in sorted((source.root / caller.folder).rglob("*.toml")):
        if file.name != "service.toml":
            try:
                text = file.read_text(encoding="utf-8")
                tables = tomllib.loads(text)
            except (OSError, ValueError) as error:
                raise LabError(f"cannot read {file}: {error}") from error
            where = file.relative_to(source.root).as_posix()
            yield file, list(_tables(caller, tables, "", text, where))


def _setting_of(caller: Caller, field: str) -> str:
    """Whose address a setting of that name is; empty if nobody's."""
    names = [field.removesuffix(ending) for ending in SETTINGS if field.endswith(ending)]
    return next((name for name in names if name in caller.others), "")


def _served(source: Source, module: Module, function: Function) -> Iterator[tuple[str, str]]:
    for decorator in function.decorator_list:
        if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)):
            continue
        path = source.text(module, decorator.args[0]) if decorator.args else None
        if decorator.func.attr in METHODS and path is not None and path.startswith("/"):
            yield decorator.func.attr, path


def _reads(source: Source, module: Module, function: Function) -> tuple[str, ...]:
    """The fields of the models among its parameters."""
    return _fields(
        source, module, [each.annotation for each in function.args.args if each.annotation is not None]
    )


def _commanded(source: Source, module: Module, call: ast.Call) -> str | None:
    """The path of commands that are declared with their model (`servicekit.commands`)."""
    named = isinstance(call.func, ast.Name) and call.func.id == "Commands" and len(call.args) > 1
    path = source.text(module, call.args[0]) if named else None
    return path if path is not None and path.startswith("/") else None


def _fields(source: Source, module: Module, named: Sequence[ast.expr]) -> tuple[str, ...]:
    models = [found for each in named if (found := source.find(module, each)) is not None]
    return tuple(name for each in models for name in model_fields(source, each))


def _maps(source: Source, caller: Caller) -> Iterator[Fact]:
    for module in caller.modules:
        for statement in module.tree.body:
            if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
                continue
            for node in ast.walk(statement.value):
                if isinstance(node, ast.Dict):
                    yield from _map(source, caller, module, node)


def _map(source: Source, caller: Caller, module: Module, node: ast.Dict) -> Iterator[Fact]:
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None or not any(
            isinstance(each, ast.Call | ast.Tuple | ast.List) for each in ast.walk(value)
        ):
            continue
        texts = [text for each in ast.walk(value) if (text := _plain(each))]
        paths = [text for text in texts if text.startswith("/")]
        name = _whom(caller, [source.text(module, key) or "", *texts], paths)
        if name is not None and (paths or _plain(key) == name):
            yield Knows(caller.name, name, "name", name, (), module.at(key))
            yield from _entry(source, caller, module, value, name)


def _whom(caller: Caller, texts: Sequence[str], paths: Sequence[str]) -> str | None:
    for text in texts:
        if text in caller.others:
            return text
    owners = {route.service for path in paths if (route := caller.serving(path)) is not None}
    return owners.pop() if len(owners) == 1 else None


def _entry(source: Source, caller: Caller, module: Module, value: ast.expr, name: str) -> Iterator[Fact]:
    """Paths, commands and replies of one entry; a call's own function, or class, only makes the entry."""
    makers = {id(each.func) for each in ast.walk(value) if isinstance(each, ast.Call)}
    for each in ast.walk(value):
        if (path := _plain(each)) and path.startswith("/"):
            yield from _address(caller, name, path, module.at(each))
        elif isinstance(each, ast.Lambda):
            if fields := made_fields(source, module, each):
                yield Knows(caller.name, name, "schema", "command", fields, module.at(each))
        elif isinstance(each, ast.Name | ast.Attribute) and id(each) not in makers:
            found = source.find(module, each)
            yield from [] if found is None else _schema(source, caller, name, found)


def _schema(source: Source, caller: Caller, name: str, found: Found) -> Iterator[Knows]:
    where = found.module.at(found.node)
    if isinstance(found.node, Function):
        if fields := made_fields(source, found.module, found.node):
            yield Knows(caller.name, name, "schema", f"command {found.node.name}", fields, where)
    elif isinstance(found.node, ast.ClassDef) and (fields := model_fields(source, found)):
        yield Knows(caller.name, name, "schema", f"reply {found.node.name}", fields, where)


def _paths(source: Source, caller: Caller) -> Iterator[Fact]:
    for module in caller.modules:
        prose = docstrings(module.tree)
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Constant | ast.JoinedStr) or id(node) in prose:
                continue
            path = source.text(module, node)
            if path and path.startswith("/") and (route := caller.serving(path)) is not None:
                yield Knows(caller.name, route.service, "name", route.service, (), module.at(node))
                yield from _address(caller, route.service, path, module.at(node))


def _address(caller: Caller, name: str, path: str, where: str) -> Iterator[Fact]:
    route = caller.serving(path)
    served = route if route is not None and route.service == name else None
    yield Knows(caller.name, name, "address", f"path {template(path)}", (), where)
    if served is None:  # as far as the code tells, nobody answers there
        yield Link("call", caller.name, name, f"POST {template(path)}", where)
    else:
        what = f"{served.method.upper()} {served.path}"
        yield Link("call", caller.name, name, what, where, served.evidence, reads=served.reads)


def _tables(caller: Caller, table: Mapping[str, Any], key: str, text: str, where: str) -> Iterator[Fact]:
    """The facts of a table, if it names a service, and of those in it."""
    words = [key, *(value for value in table.values() if isinstance(value, str))]
    name = _whom(caller, words, [word for word in words if word.startswith("/")])
    if name is not None:
        yield Knows(caller.name, name, "name", name, (), f"{where}:{_line(text, name)}")
    for inner_key, value in table.items():
        inner = _inner(caller, inner_key, value, text, where)
        yield from inner
        if name is not None and not inner:
            line = f"{where}:{_line(text, inner_key, after=_line(text, name))}"
            yield from _value(caller, name, inner_key, value, line)


def _inner(caller: Caller, key: str, value: Any, text: str, where: str) -> list[Fact]:
    """The facts of a value that is a table, or a list of tables."""
    if isinstance(value, dict):
        return list(_tables(caller, value, key, text, where))
    tables = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return [fact for each in tables for fact in _tables(caller, each, "", text, where)]


def _value(caller: Caller, name: str, key: str, value: Any, line: str) -> Iterator[Fact]:
    if isinstance(value, str) and value.startswith("/"):
        yield from _address(caller, name, value, line)
    elif isinstance(value, str) and "://" in value:
        yield Knows(caller.name, name, "address", f"url {value}", (), line)
    elif isinstance(value, list | dict) and (fields := tuple(_leaves(value))):
        yield Knows(caller.name, name, "schema", key, fields, line)


def _leaves(value: Any) -> Iterator[str]:
    """A list's own texts; of a table the keys, those of tables in it by dotted path."""
    if isinstance(value, list):
        for each in value:
            yield from [each] if isinstance(each, str) else _leaves(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            below = list(_leaves(each)) if isinstance(each, dict) else []
            yield from (f"{key}.{leaf}" for leaf in below) if below else [key]


def _line(text: str, word: str, after: int = 1) -> int:
    """The first line from `after` on in which a word stands; tomllib tells none."""
    lines = text.splitlines()
    numbers = range(after, len(lines) + 1)
    return next((number for number in numbers if word in lines[number - 1]), after)


def _plain(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
