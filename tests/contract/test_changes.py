"""The change scenarios are kept: their patches apply to the tree as it is, and say what they claim to say."""

import compileall
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.change import report
from lab.change.command import plan
from lab.change.experiment import change
from lab.change.found import Changed, Found
from lab.change.scenarios import Arm, Scenario, read_scenarios
from lab.change.tree import Tree

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = read_scenarios(ROOT)
ARMS = [
    pytest.param(scenario, arm, id=f"{scenario.slug}-{arm.name}")
    for scenario in SCENARIOS
    for arm in scenario.arms.values()
]
PAGE = ROOT / "docs" / "changes.md"
LEFT_OUT = ("tests/", "docs/", "changes/")
BOUNDARIES = "tests/contract/test_boundaries.py"


@dataclass(frozen=True)
class Patched:
    """A tree with all stages of an arm applied, and what each stage has changed."""

    tree: Tree
    stages: list[Changed]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """One scratch copy for all: each test leaves it as it was."""
    return Tree.copy(ROOT, tmp_path_factory.mktemp("change") / "tree")


@pytest.fixture
def patched(tree: Tree, scenario: Scenario, arm: Arm) -> Iterator[Patched]:
    """The tree with the stages of an arm applied, one after the other."""
    untouched = tree.git("rev-parse", "HEAD").strip()
    if arm.base is not None:
        tree.apply(arm.base)
    stages = [
        change(tree, () if number else scenario.new, [stage]) for number, stage in enumerate(arm.stages)
    ]
    yield Patched(tree, stages)
    tree.git("reset", "-q", "--hard", untouched)
    tree.git("clean", "-q", "-fdx")


def rows_of_the_page() -> dict[tuple[str, str], dict[str, str]]:
    """The first table of docs/changes.md: figures by scenario and arm."""
    lines = PAGE.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| change | arm |"))
    head, _, *rest = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    table = itertools.takewhile(lambda cells: len(cells) == len(head), rest)
    return {(cells[0].split()[1], cells[1]): dict(zip(head, cells, strict=True)) for cells in table}


def test_there_is_a_scenario_for_each_kind_of_change() -> None:
    assert [f"{scenario.number:g}" for scenario in SCENARIOS] == [
        "1",
        "2",
        "2.5",
        "3",
        "4",
        "5",
        "6",
        "7",
        "8",
    ]


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_patches_apply_in_their_order_and_leave_a_tree_that_compiles(
    patched: Patched, scenario: Scenario, arm: Arm
) -> None:
    for package in sorted(path.parent for path in patched.tree.root.glob("*/service.toml")):
        assert compileall.compile_dir(package, quiet=1, force=True), package.name


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_patches_leave_out_tests_and_documents(patched: Patched, scenario: Scenario, arm: Arm) -> None:
    touched = [each.path for stage in patched.stages for each in stage.touched]
    assert [path for path in touched if path.startswith(LEFT_OUT)] == []


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_page_shows_what_the_patches_come_to(patched: Patched, scenario: Scenario, arm: Arm) -> None:
    """What the patches alone decide; nothing was lost or doubled when the page was made."""
    found = Found(scenario, arm, changed=patched.stages)
    figures = dict(zip([name for name, _ in report.COLUMNS], report.row(found).cells, strict=True))
    told = rows_of_the_page()[scenario.slug, arm.name]
    decided = ("ES", "P", "F", "L", "stages", "X")
    assert {name: told[name] for name in decided} == {name: figures[name] for name in decided}


def test_the_page_has_a_row_for_each_experiment_and_no_order_was_lost_or_doubled() -> None:
    told = rows_of_the_page()
    experiments = plan(SCENARIOS, "both")
    names = [(each.scenario.slug, report.arm_name(each.arm, each.careless)) for each in experiments]
    assert list(told) == names
    assert {(row["lost"], row["doubled"]) for row in told.values()} == {("0", "0")}


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_changed_tree_keeps_the_import_boundaries(patched: Patched, scenario: Scenario, arm: Arm) -> None:
    """No service imports another, the plumbing none, and choreography still names and calls nobody."""
    rules = ("a_service_imports", "the_plumbing", "the_lab_knows", "the_producers_side")
    if arm.base is None:  # which is another conductor, with other modules
        rules = (*rules, "choreography_calls")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qp", "no:cacheprovider", BOUNDARIES, "-k", " or ".join(rules)],
        cwd=patched.tree.root,
        env=patched.tree.environment({}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.slug) for each in SCENARIOS])
def test_a_scenario_tells_its_story_in_five_sentences_a_line_each(scenario: Scenario) -> None:
    title, _, story = (scenario.folder / "README.md").read_text().partition("\n")
    assert title == f"# {scenario.title}"
    lines = story.strip().splitlines()
    assert len(lines) == 5
    assert all(line.endswith(".") and len(line) < 700 for line in lines)


@pytest.mark.parametrize("scenario", [pytest.param(each, id=each.slug) for each in SCENARIOS])
def test_a_service_that_a_change_is_not_about_is_named_by_its_files(tree: Tree, scenario: Scenario) -> None:
    names = {path.parent.name for path in ROOT.glob("*/service.toml")} | {path.name for path in scenario.new}
    known = {name.removesuffix("_svc") for name in names}
    assert {arm.about for arm in scenario.arms.values()} <= known
