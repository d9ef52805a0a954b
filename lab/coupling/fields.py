"""The fields of a schema: of a pydantic model that reads a message, of a function that makes one.

Fields are leaves by dotted path, those of a list's items too: `lines.sku`. A model is a class with annotated
attributes that descends from pydantic's; its bases are followed within the tree. Whatever a function passes
on whole counts as one field by its key. It refuses to guess at keys that are made at run time: those are not
seen.
"""

import ast
from collections.abc import Iterator

from lab.coupling.source import Found, Function, Module, Source

MOST_LEVELS = 8
MODELS = ("BaseModel", "RootModel", "TypedDict")
ALIASES = ("alias", "validation_alias", "serialization_alias")


def model_fields(source: Source, found: Found, level: int = 0) -> tuple[str, ...]:
    """The leaves of a model, those of its bases first; empty where it is no model."""
    if not isinstance(found.node, ast.ClassDef) or level > MOST_LEVELS or not _is_model(source, found, level):
        return ()
    leaves: dict[str, tuple[str, ...]] = {}
    for owner, statement in _attributes(source, found, level):
        name = statement.target.id if isinstance(statement.target, ast.Name) else ""
        below = _below(source, owner, statement.annotation, level)
        leaves[name] = tuple(
            f"{wire_name(statement, name)}{f'.{leaf}' if leaf else ''}" for leaf in below or [""]
        )
    return tuple(leaf for group in leaves.values() for leaf in group)


def made_fields(
    source: Source, module: Module, function: Function | ast.Lambda, level: int = 0
) -> tuple[str, ...]:
    """The leaves of the mapping that a function returns: of its literal, and of keys that are set on it."""
    if level > MOST_LEVELS:
        return ()
    if isinstance(function, ast.Lambda):
        return tuple(dict.fromkeys(_literal(source, module, function.body, level)))
    leaves: list[str] = []
    for node in ast.walk(function):
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        leaves += _literal(source, module, node.value, level)
        if isinstance(node.value, ast.Name):
            leaves += _assigned(source, module, function, node.value.id, level)
    return tuple(dict.fromkeys(leaves))


def wire_name(statement: ast.AnnAssign, name: str) -> str:
    """What a field is called in the message: its alias, or its aliases, or its own name."""
    for node in ast.walk(statement):
        if isinstance(node, ast.keyword) and node.arg in ALIASES:
            texts = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)]
            if told := [text for text in texts if isinstance(text, str)]:
                return "|".join(told)
    return name


def _is_model(source: Source, found: Found, level: int) -> bool:
    if not isinstance(found.node, ast.ClassDef) or level > MOST_LEVELS:
        return False
    for base in found.node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        if getattr(named, "attr", getattr(named, "id", "")) in MODELS:
            return True
        parent = source.find(found.module, named)
        if parent is not None and _is_model(source, parent, level + 1):
            return True
    return False


def _attributes(source: Source, found: Found, level: int) -> Iterator[tuple[Module, ast.AnnAssign]]:
    assert isinstance(found.node, ast.ClassDef)
    for base in found.node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        parent = source.find(found.module, named)
        if parent is not None and isinstance(parent.node, ast.ClassDef) and level < MOST_LEVELS:
            yield from _attributes(source, parent, level + 1)
    for node in found.node.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield found.module, node


def _below(source: Source, module: Module, annotation: ast.expr, level: int) -> tuple[str, ...]:
    """The leaves below an annotation that names a model, in a list or an optional one too."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name | ast.Attribute) and (found := source.find(module, node)) is not None:
            leaves = model_fields(source, found, level + 1)
            if isinstance(found.node, ast.expr) and level < MOST_LEVELS and found.node is not annotation:
                leaves = _below(source, found.module, found.node, level + 1)
            if leaves:
                return leaves
    return ()


def _literal(source: Source, module: Module, value: ast.expr, level: int) -> Iterator[str]:
    match value:
        case ast.Dict(keys=keys, values=values):
            for key, each in zip(keys, values, strict=True):
                if key is None:  # **another
                    yield from _literal(source, module, each, level)
                elif (name := source.text(module, key)) is not None:
                    below = list(_literal(source, module, _item(each), level))
                    yield from (f"{name}.{leaf}" for leaf in below) if below else [name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _literal(source, module, left, level)
            yield from _literal(source, module, right, level)
        case ast.Call(func=function):
            found = source.find(module, function)
            if found is not None and isinstance(found.node, Function):
                yield from made_fields(source, found.module, found.node, level + 1)


def _item(value: ast.expr) -> ast.expr:
    return value.elt if isinstance(value, ast.ListComp | ast.GeneratorExp) else value


def _assigned(source: Source, module: Module, function: Function, name: str, level: int) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield from _literal(source, module, value, level)
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                yield from _literal(source, module, value, level)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=target), slice=key)]) if target == name:
                if (told := source.text(module, key)) is not None:
                    yield told
