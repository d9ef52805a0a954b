"""What the documents say about the code is compared with the code: names, settings, pages, links."""

import ast
import importlib
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from lab import problem_pages, tour
from lab.system import System, discover_services
from servicekit.settings import ParticipantSettings
from tests.docs.documents import DOCUMENTS, ROOT, anchors, prose_of, quoted, rows, text_of

SETTINGS = {
    service.name: importlib.import_module(f"{service.package}.settings").Settings
    for service in discover_services()
}
CODE_NAME = re.compile(r"([\w/]+/\w+\.py)(?::([\w.]+))?")
SETTING = re.compile(r"\b(?:CHECKOUT|EMAIL|WAREHOUSE|REWARDS)_[A-Z_]+\b")
OTHER_SITES = ("https://keepachangelog.com/", "https://semver.org/", "http://127.0.0.1:")


def test_links_between_documents_resolve() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
            if target.startswith("http"):
                assert target.startswith(OTHER_SITES), f"{path.name}: {target}"
                continue
            file, _, anchor = target.partition("#")
            linked = (path.parent / file) if file else path
            assert linked.exists(), f"{path.name}: {target}"
            assert not anchor or anchor in anchors(linked), f"{path.name}: {target}"


def test_files_and_names_of_the_code_exist() -> None:
    checked = 0
    for path in DOCUMENTS:
        for phrase in quoted(path.read_text()):
            found = CODE_NAME.fullmatch(phrase)
            if found is None:
                continue
            file, name = found.groups()
            assert (ROOT / file).is_file(), f"{path.name}: {phrase}"
            assert name is None or name in _names(ROOT / file), f"{path.name}: {phrase}"
            checked += 1
    assert checked > 80


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_is_on_the_operations_page(service: str) -> None:
    told = {name for cells in rows("docs/operations.md") for name in quoted(cells[0])}
    settings = SETTINGS[service]
    prefix = settings.model_config["env_prefix"]
    for field in settings.model_fields:
        shared = field in ParticipantSettings.model_fields
        shown = f"*_{field.upper()}" if shared else f"{prefix}{field.upper()}"
        assert shown in told


def test_no_document_names_a_setting_that_is_not_there() -> None:
    known = {
        f"{settings.model_config['env_prefix']}{field.upper()}"
        for settings in SETTINGS.values()
        for field in settings.model_fields
    }
    for path in DOCUMENTS:
        for name in SETTING.findall(path.read_text()):
            assert name in known or name.endswith("_"), f"{path.name}: {name}"


def test_the_defaults_on_the_operations_page_are_the_code_s() -> None:
    checked = 0
    for cells in rows("docs/operations.md"):
        names = [name for name in quoted(cells[0]) if "_" in name and name.isupper()]
        numbers = cells[1].split(", ") if len(cells) > 1 else []
        if len(names) != len(numbers):
            continue
        for name, number in zip(names, numbers, strict=True):
            if not re.fullmatch(r"[\d.]+", number):
                continue
            prefix, _, field = name.partition("_")
            settings = SETTINGS["rewards" if prefix == "*" else prefix.lower()]
            assert settings.model_fields[field.lower()].default == float(number), name
            checked += 1
    assert checked > 20


def test_the_bounds_on_the_architecture_page_are_the_code_s() -> None:
    checked = 0
    for cells in rows("docs/architecture.md"):
        for name in quoted(cells[-1]) if len(cells) == 3 else ():
            for value in _bounds(name):
                assert any(_stands(shown, cells[1]) for shown in _renderings(value)), f"{name}: {value:g}"
                checked += 1
    assert checked > 40


def test_the_problem_pages_are_those_of_the_catalogues() -> None:
    folder = ROOT / problem_pages.FOLDER
    written = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.md")}
    assert written == problem_pages.pages(), "run: python -m lab.problem_pages"


def test_every_dependency_has_its_decision() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))
    groups = [name for group in project["dependency-groups"].values() for name in group]
    headings = re.findall(r"^### (.+)$", text_of("docs/decisions.md"), re.MULTILINE)
    decided = {word.strip("(),:") for heading in headings for word in heading.split()}
    for requirement in (*project["project"]["dependencies"], *groups):
        name = re.split(r"[\[<>=~ ]", requirement)[0]
        assert name in decided, name


def test_every_decision_has_a_choice_a_rejected_alternative_and_a_cost() -> None:
    for decision in text_of("docs/decisions.md").split("\n### ")[1:]:
        body = decision.split("\n## ")[0]
        parts = [body.count(f"**{part}.** ") for part in ("Choice", "Rejected", "Cost")]
        assert parts == [1, 1, 1], decision.partition("\n")[0]


def test_the_documents_name_no_package_index_s_host() -> None:
    for path in DOCUMENTS:
        assert not re.search(r"pypi\.org|pythonhosted", path.read_text()), path.name


def test_the_next_commands_are_to_be_typed_as_duet_was_called() -> None:
    system = System(Path("/srv/data"), 18_000)
    assert [command for command, _ in tour.next_commands(system, ".venv/bin/duet")] == [
        ".venv/bin/duet order --style both --count 100 --rate 10 --port-base 18000",
        ".venv/bin/duet kill warehouse --port-base 18000",
        ".venv/bin/duet audit --wait 60 --port-base 18000",
    ]
    default = System(Path("/srv/data"))
    assert [command for command, _ in tour.next_commands(default, "/usr/lib/lab/__main__.py")] == [
        "duet order --style both --count 100 --rate 10",
        "duet kill warehouse",
        "duet audit --wait 60",
    ]


def _bounds(name: str) -> set[float]:
    """The numbers that a setting (`*_`: of any service) or a constant of a module stands for."""
    file, _, constant = name.partition(":")
    if constant:
        value = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), constant, None)
        return {value} if isinstance(value, int | float) else set()
    prefix, _, field = name.partition("_")
    named = [
        settings.model_fields[field.lower()].default
        for service, settings in SETTINGS.items()
        if field.lower() in settings.model_fields and prefix in ("*", service.upper())
    ]
    return {value for value in named if isinstance(value, int | float)}


def _renderings(value: float) -> set[str]:
    """How a person may write a number: as it is, in KiB or MiB, in days, in words."""
    parts = {f"{value:,g}", f"{value * 1000:g} ms", f"{value / 1024:g} KiB", f"{value / 86_400:g} days"}
    return parts | ({"a fifth"} if value == 0.2 else set())


def _stands(shown: str, text: str) -> bool:
    return re.search(rf"(?<![\d.,]){re.escape(shown)}(?![\d.]|,\d)", text) is not None


@cache
def _names(path: Path) -> frozenset[str]:
    """The functions, classes, methods and constants of a module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            found |= {
                name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)
            }
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            methods = ast.FunctionDef | ast.AsyncFunctionDef
            found |= {
                f"{node.name}.{part.name}" for part in ast.iter_child_nodes(node) if isinstance(part, methods)
            }
    return frozenset(found)
