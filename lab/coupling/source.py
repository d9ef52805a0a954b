"""The source of one tree, read and never run: modules, constants, imports and where a name is defined.

A tree may be a scratch copy with a patch on it, so nothing is imported from it. It refuses to evaluate: a
text is known only where it is a constant, an f-string (what is put in becomes `{}`), a name or attribute that
leads to one, or a call of a function that returns nothing else.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError

MOST_STEPS = 12  # of one name leading to another, before it counts as unknown
HOLE = "{}"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.expr


@dataclass(frozen=True)
class Module:
    """One parsed file. `imports` leads from a local name to a module and, if it is not itself one, a name."""

    name: str
    path: str
    tree: ast.Module
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)

    def at(self, node: ast.AST) -> str:
        """Where a node is: `folder/file.py:12`."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}"


@dataclass(frozen=True)
class Found:
    """A definition, and the module that it stands in."""

    module: Module
    node: Definition


class Source:
    """The tree at `root`; each file is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module | None] = {}

    def module(self, name: str) -> Module | None:
        """The module of that dotted name; None where there is none. Raises `LabError` if it is no Python."""
        if name not in self._modules:
            base = self.root.joinpath(*name.split("."))
            files = (base.with_suffix(".py"), base / "__init__.py")
            file = next((each for each in files if each.is_file()), None)
            self._modules[name] = None if file is None else self._parse(name, file)
        return self._modules[name]

    def package(self, folder: str) -> list[Module]:
        """All modules of a service's package, its migrations aside."""
        found = []
        for path in sorted((self.root / folder).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if "migrations" not in parts and (module := self.module(name)) is not None:
                found.append(module)
        return found

    def reached(self, name: str) -> list[Module]:
        """A module and all of its own package that it imports, directly or by others."""
        folder, found, waiting = name.split(".")[0], dict[str, Module](), [name]
        while waiting:
            each = waiting.pop()
            module = self.module(each)
            if module is None or each in found:
                continue
            found[each] = module
            for target, attribute in module.imports.values():
                if target.split(".")[0] == folder:
                    waiting += [target, f"{target}.{attribute}"] if attribute else [target]
        return [found[each] for each in sorted(found)]

    def find(self, module: Module, expression: ast.expr) -> Found | None:
        """The class, function or value that a name or an attribute of a module leads to."""
        match expression:
            case ast.Name(id=name):
                return self._named(module, name, MOST_STEPS)
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                target = self._imported_module(module, owner)
                return None if target is None else self._named(target, name, MOST_STEPS)
        return None

    def text(self, module: Module, expression: ast.expr, steps: int = MOST_STEPS) -> str | None:
        """The text that an expression stands for; None where that would take running it."""
        if steps == 0:
            return None
        match expression:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=parts):
                return "".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in parts)
            case ast.Call(func=function):
                return self._returned(module, function, steps)
            case ast.Attribute(value=owner, attr="name"):
                found = self.find(module, owner)
                if found is not None and isinstance(found.node, ast.Call) and found.node.args:
                    return self.text(found.module, found.node.args[0], steps - 1)
        found = self.find(module, expression)
        if found is None or not isinstance(found.node, ast.expr) or found.node is expression:
            return None
        return self.text(found.module, found.node, steps - 1)

    def _returned(self, module: Module, function: ast.expr, steps: int) -> str | None:
        found = self.find(module, function)
        if found is None or not isinstance(found.node, Function):
            return None
        returns = [each for each in ast.walk(found.node) if isinstance(each, ast.Return)]
        if len(returns) != 1 or not isinstance(returns[0].value, ast.JoinedStr):
            return None
        return self.text(found.module, returns[0].value, steps - 1)

    def _named(self, module: Module, name: str, steps: int) -> Found | None:
        if steps == 0:
            return None
        if (node := module.definitions.get(name)) is not None:
            if isinstance(node, ast.Name):  # one name for another
                return self._named(module, node.id, steps - 1)
            return Found(module, node)
        if name in module.imports:
            target, attribute = module.imports[name]
            other = self.module(target) if attribute else None
            return None if other is None else self._named(other, attribute, steps - 1)
        return None

    def _imported_module(self, module: Module, name: str) -> Module | None:
        if name not in module.imports:
            return None
        target, attribute = module.imports[name]
        return self.module(f"{target}.{attribute}" if attribute else target)

    def _parse(self, name: str, file: Path) -> Module:
        path = file.relative_to(self.root).as_posix()
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, SyntaxError) as error:
            raise LabError(f"cannot read {file}: {error}") from error
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        return Module(name, path, tree, dict(_imports(tree, package)), dict(_definitions(tree.body)))


def template(path: str) -> str:
    """A path, or a subject, in which whatever is put in is one and the same hole."""
    out, depth = "", 0
    for character in path:
        depth += character == "{"
        out += character if depth == 0 else ""
        if character == "}" and depth:
            depth -= 1
            out += HOLE if depth == 0 else ""
    return out


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the nodes that are docstrings, or texts that stand alone."""
    return {
        id(each.value)
        for each in ast.walk(tree)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    }


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield (each.asname or each.name, (each.name, ""))
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            for each in node.names:
                yield (each.asname or each.name, (target, each.name))


def _definitions(body: Iterable[ast.stmt]) -> Iterator[tuple[str, Definition]]:
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
