"""The lab of changes, but for the systems that it runs: scenarios, scratch copies, turns, figures, report."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.change import experiment, report
from lab.change.command import plan, try_patches
from lab.change.editing import edit_patches
from lab.change.experiment import change
from lab.change.found import Changed, Deployment, Fate, Found
from lab.change.live import Live
from lab.change.plots import dip
from lab.change.scenarios import Arm, Scenario, choose, read_scenarios
from lab.change.tree import Touched, Tree
from lab.errors import LabError

BOOKS = {"balances": True, "lost": 0, "missing": 0, "duplicate": 0, "unexpected": 0}
SERVICE = 'name = "{name}"\nport = {port}\n[broker]\npublish = ["outcomes.{name}"]\nsubscribe = ["_INBOX"]\n'


def make_tree(root: Path) -> Path:
    """A project of two services, as far as the lab of changes looks at it; in git, as a clone would be."""
    files = {
        "checkout/service.toml": SERVICE.format(name="checkout", port=8000),
        "checkout/app.py": "A = 1\n",
        "email_svc/service.toml": SERVICE.format(name="email", port=8001),
        "email_svc/app.py": "A = 1\n",
        "servicekit/web.py": "A = 1\n",
        "compose.yaml": "services: {}\n",
        ".gitignore": "ignored.txt\n",
        "ignored.txt": "secret\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for arguments in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def make_scenario(
    root: Path, slug: str = "one", patches: Mapping[str, str] | None = None, toml: str = ""
) -> Path:
    """A scenario's folder; `patches` are texts by file name."""
    folder = root / "changes" / slug
    folder.mkdir(parents=True)
    (folder / "scenario.toml").write_text(f'number = 1\ntitle = "One"\nabout = "email"\n{toml}')
    (folder / "README.md").write_text("# One\n\nIt changes.\n")
    (folder / "proof.py").write_text("")
    for name, text in (patches or {"orchestration.patch": "", "choreography.patch": ""}).items():
        (folder / name).write_text(text)
    return folder


def patch(path: str, before: str, after: str) -> str:
    """A patch of a file of one line."""
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{before}\n+{after}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.copy(make_tree(tmp_path / "source"), tmp_path / "copy")


def test_a_copy_has_what_git_holds_and_nothing_that_it_ignores(tree: Tree) -> None:
    assert (tree.root / "email_svc" / "app.py").read_text() == "A = 1\n"
    assert not (tree.root / "ignored.txt").exists()


def test_only_what_a_patch_changes_gets_another_digest(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "p.patch"
    file.write_text(patch("email_svc/app.py", "A = 1", "A = 2"))
    changed = change(tree, (), [file])
    assert (changed.own, changed.plumbing, changed.new, changed.broker) == (("email",), (), (), False)
    assert [(each.path, each.lines) for each in changed.touched] == [("email_svc/app.py", 2)]


def test_lines_that_one_stage_adds_and_a_later_one_takes_away_count_twice(tree: Tree, tmp_path: Path) -> None:
    there, back = tmp_path / "there.patch", tmp_path / "back.patch"
    there.write_text(patch("email_svc/app.py", "A = 1", "A = 2"))
    back.write_text(patch("email_svc/app.py", "A = 2", "A = 1"))
    changed = change(tree, (), [there, back])
    assert [(each.path, each.added, each.deleted) for each in changed.touched] == [("email_svc/app.py", 2, 2)]
    assert changed.own == ()


def test_a_change_of_the_plumbing_is_told_apart_and_one_of_rights_is_the_brokers(
    tree: Tree, tmp_path: Path
) -> None:
    file = tmp_path / "p.patch"
    rights = 'publish = ["outcomes.email"]'
    file.write_text(patch("servicekit/web.py", "A = 1", "A = 2") + patch("checkout/app.py", "A = 1", "A = 2"))
    changed = change(tree, (), [file])
    assert (changed.own, changed.plumbing, changed.broker) == (("checkout",), ("email",), False)
    before = tree.digests()
    told = tree.root / "email_svc" / "service.toml"
    told.write_text(told.read_text().replace(rights, 'publish = ["outcomes.post"]'))
    after = tree.digests()
    assert {name for name in after if after[name] != before[name]} == {"broker"}


def test_a_patch_that_does_not_apply_changes_nothing(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "p.patch"
    file.write_text(patch("email_svc/app.py", "A = 1", "A = 2") + patch("checkout/app.py", "B = 1", "B = 2"))
    with pytest.raises(LabError, match=r"checkout/app\.py"):
        tree.apply(file)
    assert (tree.root / "email_svc" / "app.py").read_text() == "A = 1\n"


def test_tests_documents_and_the_labs_tools_are_not_counted_as_product() -> None:
    names = (
        "tests/test_a.py",
        "docs/a.md",
        "lab/ledger.py",
        "README.md",
        "compose.yaml",
        "changes/a/proof.py",
    )
    assert [name for name in names if Touched(name, 1, 0).is_product] == ["compose.yaml"]


def test_a_new_service_is_copied_in_whole(tree: Tree, tmp_path: Path) -> None:
    folder = tmp_path / "invoice_svc"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "service.toml").write_text(SERVICE.format(name="invoice", port=8004))
    tree.add([folder])
    assert "invoice" in tree.digests()
    assert not (tree.root / "invoice_svc" / "__pycache__").exists()


def test_stages_come_in_the_order_of_their_numbers_and_the_base_is_none_of_them(tmp_path: Path) -> None:
    names = ["orchestration.2.patch", "orchestration.10.patch", "orchestration.1.patch", "choreography.patch"]
    names += ["settings.patch", "settings.base.patch"]
    make_scenario(
        tmp_path, patches=dict.fromkeys(names, ""), toml='[careless]\ncheckout_first = ["choreography"]\n'
    )
    [scenario] = read_scenarios(tmp_path)
    stages = {name: [stage.name for stage in arm.stages] for name, arm in scenario.arms.items()}
    assert stages == {
        "orchestration": ["orchestration.1.patch", "orchestration.2.patch", "orchestration.10.patch"],
        "choreography": ["choreography.patch"],
        "settings": ["settings.patch"],
    }
    assert scenario.arms["settings"].base == scenario.folder / "settings.base.patch"
    assert scenario.arms["settings"].style == "orchestration"
    assert [(each.arm.name, each.careless) for each in plan([scenario], "both")] == [
        ("orchestration", ""),
        ("choreography", ""),
        ("settings", ""),
        ("choreography", "checkout_first"),
    ]


def test_an_arm_may_be_about_another_service(tmp_path: Path) -> None:
    make_scenario(tmp_path, toml='[choreography]\nabout = "checkout"\n')
    [scenario] = read_scenarios(tmp_path)
    assert {name: arm.about for name, arm in scenario.arms.items()} == {
        "orchestration": "email",
        "choreography": "checkout",
    }


@pytest.mark.parametrize("lacking", ["README.md", "proof.py", "choreography.patch"])
def test_half_a_scenario_is_refused(tmp_path: Path, lacking: str) -> None:
    (make_scenario(tmp_path) / lacking).unlink()
    with pytest.raises(LabError, match=lacking):
        read_scenarios(tmp_path)


def test_a_scenario_is_chosen_by_name_or_number_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    make_scenario(tmp_path)
    scenarios = read_scenarios(tmp_path)
    assert choose(scenarios, "one") == choose(scenarios, "1") == choose(scenarios, "all") == scenarios
    with pytest.raises(LabError, match="it is all, one"):
        choose(scenarios, "two")
    with pytest.raises(LabError, match="no patches for settings"):
        plan(scenarios, "settings")


def test_checkout_is_last_and_new_services_are_first() -> None:
    ports = {"checkout": 0, "email": 1, "warehouse": 2, "invoice": 4}
    services = [SimpleNamespace(name=name, port_offset=port) for name, port in ports.items()]
    live = cast("Live", SimpleNamespace(system=SimpleNamespace(services=services)))
    changed = Changed(("invoice",), ("checkout", "warehouse"), ("email",), broker=False, touched=())
    assert experiment._in_turn(live, changed) == ["invoice", "email", "warehouse", "checkout"]


def found(tmp_path: Path, **changed: Any) -> Found:
    """An experiment of four orders: quick, slow, at the second try, and one that is not completed."""
    stages = tuple(tmp_path / name for name in ("a.patch", "b.patch", "nothing.patch"))
    for stage in stages:
        stage.write_text("" if stage.stem == "nothing" else "a patch\n")
    arm = Arm("orchestration", stages, "email")
    scenario = Scenario("one", 1, "One", make_scenario(tmp_path), {"orchestration": arm}, ())
    given: dict[str, Any] = {
        "changed": [
            Changed((), ("email",), ("rewards",), broker=False, touched=(Touched("a.py", 3, 1),)),
            Changed((), ("checkout", "warehouse"), (), broker=True, touched=(Touched("a.py", 1, 1),)),
        ],
        "deployments": [Deployment(1, "email", False, 101, 102), Deployment(1, "invoice", True, 100, 101)],
        "fates": [
            Fate(100, 100.2, True),
            Fate(101, 103.5, True),
            Fate(102, 102.9, False),
            Fate(103, None, True),
        ],
        "began": 100.0,
        "ended": 104.0,
        "audit": {**BOOKS, "missing": 1},
        "proof": {"proved": True, "what": "It came about."},
    }
    return Found(scenario, arm, **{**given, **changed})


def test_the_figures_of_an_experiment(tmp_path: Path) -> None:
    told = report.row(found(tmp_path))
    figures = dict(zip([name for name, _ in report.COLUMNS], told.cells, strict=True))
    assert figures == {
        "ES": "2",
        "P": "1",
        "F": "1",
        "L": "6",
        "K": "0",
        "stages": "2",
        "R": "1",
        "X": "3",
        "refused": "1",
        "slow": "2",
        "longest": "2.5",
        "lost": "1",
        "doubled": "0",
        "by hand": "0",
    }


def test_an_experiment_is_sound_only_with_its_ledger_its_proof_and_every_order(tmp_path: Path) -> None:
    sound = found(tmp_path, audit=BOOKS)
    assert sound.sound
    assert not replace(sound, audit={**BOOKS, "balances": False}).sound
    assert not replace(sound, proof={"proved": False, "what": "no"}).sound
    assert not replace(sound, not_accepted=["503"]).sound
    assert not replace(sound, backfill={"how": "by hand"}).sound
    assert not replace(sound, error="it broke off").sound


def test_an_experiment_that_broke_off_is_a_row_that_says_why(tmp_path: Path) -> None:
    each = found(tmp_path, error="checkout is not ready", audit={}, proof={})
    assert set(report.row(each).cells) == {"–"}
    report.write([each], {"sentence": "Measured."}, tmp_path / "out")
    assert "checkout is not ready" in (tmp_path / "out" / "changes.html").read_text()


def test_patches_are_tried_before_anything_is_started(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    bad = {"orchestration.patch": "", "choreography.patch": patch("email_svc/app.py", "B = 1", "B = 2")}
    make_scenario(source, patches=bad)
    experiments = plan(read_scenarios(source), "both")
    with pytest.raises(LabError, match="duet change --edit one choreography"):
        try_patches(experiments, source, tmp_path / "patches")


def test_the_report_is_one_page_and_the_same_in_markdown(tmp_path: Path) -> None:
    each = found(tmp_path, proof={"proved": True, "what": "<b>10 of 10</b>"})
    report.write([each], {"sentence": "Measured on 2 cores."}, tmp_path / "out")
    page = (tmp_path / "out" / "changes.html").read_text()
    assert "&lt;b&gt;10 of 10&lt;/b&gt;" in page
    assert "<svg" in page
    assert "src=" not in page
    assert "<script" not in page
    markdown = (tmp_path / "out" / "changes.md").read_text()
    assert "| 1 one | orchestration | 2 | 1 | 1 | 6 | 0 | 2 | 1 | 3 | 1 | 2 | 2.5 | 1 | 0 | 0 |" in markdown
    [plain] = json.loads((tmp_path / "out" / "changes.json").read_text())["experiments"]
    assert plain["figures"]["lost"] == "1"


def test_the_plot_follows_the_pages_colour_and_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    each = found(tmp_path)
    assert dip(each) == dip(each)
    assert "currentColor" in dip(each)
    assert "#010203" not in dip(each)


def test_of_a_persons_settings_a_tree_hears_only_whether_to_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHECKOUT_BATCHING", "off")
    monkeypatch.setenv("CHECKOUT_STYLE", "choreography")
    told = Tree(make_tree(tmp_path / "source")).environment({"EMAIL_PORT": "1"})
    assert {name for name in told if name.startswith(("CHECKOUT_", "EMAIL_"))} == {
        "CHECKOUT_BATCHING",
        "EMAIL_PORT",
    }


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a person's shell does: each line of this script."""
    file = tmp_path / "shell"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o700)
    monkeypatch.setenv("SHELL", str(file))
    monkeypatch.setenv("DUET_ROOT", str(make_tree(tmp_path / "source")))
    return file


def test_a_patch_is_made_anew_by_editing_a_copy(tmp_path: Path, shell: Path) -> None:
    two = {"orchestration.1.patch": patch("email_svc/app.py", "A = 1", "A = 2"), "orchestration.2.patch": ""}
    folder = make_scenario(tmp_path / "source", patches={**two, "choreography.patch": ""})
    shell.write_text("#!/bin/sh\necho 'B = 1' >> checkout/app.py\n")
    edit_patches("one", "orchestration", tmp_path / "work")
    first, second = (folder / name for name in two)
    assert "+A = 2" in first.read_text()
    assert first.read_text().count("+B = 1") == second.read_text().count("+B = 1") == 1
    assert "A = 2" not in second.read_text()
    copy = Tree.copy(tmp_path / "source", tmp_path / "copy")
    copy.apply(first)
    copy.apply(second)
    assert (copy.root / "checkout" / "app.py").read_text() == "A = 1\nB = 1\nB = 1\n"
    assert not list((tmp_path / "work").iterdir())


def test_a_patch_that_no_longer_applies_can_be_made_anew(
    tmp_path: Path, shell: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {"orchestration.patch": patch("email_svc/app.py", "B = 1", "B = 2"), "choreography.patch": ""}
    folder = make_scenario(tmp_path / "source", patches=old)
    shell.write_text("#!/bin/sh\necho 'A = 3' > email_svc/app.py\n")
    edit_patches("one", "orchestration", tmp_path / "work")
    assert "does not apply any more" in capsys.readouterr().err
    assert "+A = 3" in (folder / "orchestration.patch").read_text()


def test_a_shell_that_ends_with_an_error_leaves_the_patch_alone(tmp_path: Path, shell: Path) -> None:
    old = {"orchestration.patch": patch("email_svc/app.py", "A = 1", "A = 2"), "choreography.patch": ""}
    folder = make_scenario(tmp_path / "source", patches=old)
    shell.write_text("#!/bin/sh\nrm email_svc/app.py; exit 1\n")
    with pytest.raises(LabError, match="left as it was"):
        edit_patches("one", "orchestration", tmp_path / "work")
    assert (folder / "orchestration.patch").read_text() == old["orchestration.patch"]
