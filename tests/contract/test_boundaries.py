"""Who may import whom: the services share plumbing and nothing else, and the plumbing knows none of them."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SERVICES = sorted(path.parent.name for path in ROOT.glob("*/service.toml"))
OURS = {*SERVICES, "servicekit", "lab"}
# Checkout's orchestration is the only module that names all three services.
NAMES_OF_SERVICES = ("email", "warehouse", "rewards")
# What a conductor needs to call somebody, by checkout's modules.
CALLING = {"clients", "commands", "replies"}
# The modules through which the choreographed order goes; none of them may know who listens.
PRODUCERS = ("asyncapi", "broker", "choreography", "events", "participants", "timeline")


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, by its full name."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            # Of a top-level package itself, modules are imported by their names.
            yield from [module] if "." in module else [f"{module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Call) and _loads_by_name(node):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value


def _loads_by_name(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("import_module", "__import__")


def foreign(package: str, allowed: set[str]) -> list[str]:
    """Imports of our own packages, from one of them, that are not allowed."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in imported(path)
        if name.split(".")[0] in OURS - {package, *allowed}
    ]


def test_the_four_services_are_found() -> None:
    assert set(SERVICES) >= {"checkout", "email_svc", "warehouse_svc", "rewards_svc"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_the_plumbing_and_no_other_service(service: str) -> None:
    assert foreign(service, {"servicekit"}) == []


def test_the_plumbing_imports_no_service_and_no_lab() -> None:
    assert foreign("servicekit", set()) == []


def test_the_lab_knows_the_services_only_by_what_they_serve() -> None:
    assert foreign("lab", {"servicekit"}) == []


def test_the_plumbing_names_no_order_and_no_participant() -> None:
    """It is domain-blind: no identifier of its own speaks of orders, shipments, points or confirmations."""
    words = {"order", "shipment", "points", "confirmation", "checkout"}
    found = []
    for path in sorted((ROOT / "servicekit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "name", None) or getattr(node, "arg", None) or getattr(node, "id", None)
            if isinstance(name, str) and any(
                word == part for part in name.lower().split("_") for word in words
            ):
                found.append(f"{path.name}: {name}")
    assert found == []


def test_no_top_level_package_hides_one_of_the_standard_library_or_of_the_index() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages & {"platform", "email", "http", "queue", "duet", *sys.stdlib_module_names} == set()


def test_alembic_is_not_imported_by_anything_that_serves() -> None:
    def top_level(path: Path) -> Iterator[str]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                yield node.module or ""
            elif isinstance(node, ast.Import):
                yield from (name.name for name in node.names)

    guilty = [
        str(path.relative_to(ROOT))
        for package in (*SERVICES, "servicekit")
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
        and "alembic_env" not in path.parts
        and any(name.split(".")[0] == "alembic" for name in top_level(path))
    ]
    assert guilty == []


def test_only_the_conductor_names_all_three_services() -> None:
    """One literal map names them; the rest of checkout goes by the names that it is given."""
    naming = []
    for path in sorted((ROOT / "checkout").glob("*.py")):
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if strings >= set(NAMES_OF_SERVICES):
            naming.append(path.name)
    # schemas.py: the example of a whole representation.
    assert naming == ["orchestration.py", "schemas.py"]


def reached(module: str) -> set[str]:
    """All modules of checkout that one of them imports, directly or by others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            path = ROOT / "checkout" / f"{name}.py"
            waiting += [
                part.split(".")[1]
                for part in imported(path)
                if part.startswith("checkout.") and path.exists()
            ]
    return found


def test_choreography_calls_nobody() -> None:
    """No client, no command to a service and no reply of one is within its reach, nor any HTTP client."""
    assert reached("orchestration") >= CALLING
    modules = reached("choreography")
    assert modules & CALLING == set()
    for name in modules:
        roots = {module.split(".")[0] for module in imported(ROOT / "checkout" / f"{name}.py")}
        assert roots & {"httpx", "httpx_aiohttp", "aiohttp"} == set(), name


@pytest.mark.parametrize("module", PRODUCERS)
def test_the_producers_side_names_no_service(module: str) -> None:
    """In no case, in no comment; but a customer has an e-mail address, and has joined or not."""
    text = (ROOT / "checkout" / f"{module}.py").read_text(encoding="utf-8").lower()
    if module == "events":
        text = text.replace("    email: str\n    rewards_member: bool\n", "", 1)
    assert [name for name in NAMES_OF_SERVICES if name in text] == []


@pytest.mark.parametrize("style", ["orchestration", "choreography"])
def test_a_style_is_read_in_a_minute(style: str) -> None:
    assert len((ROOT / "checkout" / f"{style}.py").read_text(encoding="utf-8").splitlines()) < 100


def test_the_two_styles_stand_in_the_same_order() -> None:
    """Paragraph by paragraph, for a split view: both `place_order` have the same three comments."""
    paragraphs = [
        re.findall(r"# (\w+): ", (ROOT / "checkout" / f"{style}.py").read_text(encoding="utf-8"))
        for style in ("orchestration", "choreography")
    ]
    assert paragraphs == [["Accept", "Perform", "Answer"]] * 2


def test_the_check_sees_a_forbidden_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkout"
    package.mkdir()
    (package / "bad.py").write_text(
        "def f():\n    from rewards_svc import points\n\nimport lab.up\nfrom . import orders\n"
        'import importlib\nimportlib.import_module("email_svc.app")\n'
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert foreign("checkout", {"servicekit"}) == [
        "checkout/bad.py imports lab.up",
        "checkout/bad.py imports rewards_svc.points",
        "checkout/bad.py imports email_svc.app",
    ]
