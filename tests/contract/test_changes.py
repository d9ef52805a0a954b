"""The change scenarios are kept: their patches apply to the tree as it is, and say what they claim to say."""

import compileall
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.change.scenarios import Arm, Scenario, read_scenarios
from lab.change.tree import Touched, Tree

ROOT = Path(__file__).parent.parent.parent
SCENARIOS = read_scenarios(ROOT)
ARMS = [
    pytest.param(scenario, arm, id=f"{scenario.slug}-{arm.name}")
    for scenario in SCENARIOS
    for arm in scenario.arms.values()
]
LEFT_OUT = ("tests/", "docs/", "changes/")
BOUNDARIES = "tests/contract/test_boundaries.py"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """One scratch copy for all: each test leaves it as it was."""
    return Tree.copy(ROOT, tmp_path_factory.mktemp("change") / "tree")


@pytest.fixture
def changed(tree: Tree, scenario: Scenario, arm: Arm) -> Iterator[Tree]:
    """The tree with all stages of an arm applied, one after the other."""
    untouched = tree.git("rev-parse", "HEAD").strip()
    if arm.base is not None:
        tree.apply(arm.base)
    tree.begin()
    tree.add(scenario.new)
    for stage in arm.stages:
        tree.apply(stage)
    yield tree
    tree.git("reset", "-q", "--hard", untouched)
    tree.git("clean", "-q", "-fdx")


def product(tree: Tree, scenario: Scenario) -> list[Touched]:
    return [each for each in tree.touched(but=[path.name for path in scenario.new]) if each.is_product]


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
    changed: Tree, scenario: Scenario, arm: Arm
) -> None:
    for package in sorted(path.parent for path in changed.root.glob("*/service.toml")):
        assert compileall.compile_dir(package, quiet=1, force=True), package.name


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_patches_leave_out_tests_and_documents(changed: Tree, scenario: Scenario, arm: Arm) -> None:
    assert [each.path for each in changed.touched() if each.path.startswith(LEFT_OUT)] == []


@pytest.mark.parametrize(("scenario", "arm"), ARMS)
def test_the_changed_tree_keeps_the_import_boundaries(changed: Tree, scenario: Scenario, arm: Arm) -> None:
    """No service imports another, the plumbing none, and choreography still names and calls nobody."""
    rules = ("a_service_imports", "the_plumbing", "the_lab_knows", "the_producers_side")
    if arm.base is None:  # which is another conductor, with other modules
        rules = (*rules, "choreography_calls")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qp", "no:cacheprovider", BOUNDARIES, "-k", " or ".join(rules)],
        cwd=changed.root,
        env=changed.environment({}),
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
    known = {name.removesuffix("_svc") for name in names} | {"broker"}
    assert {arm.about for arm in scenario.arms.values()} <= known
