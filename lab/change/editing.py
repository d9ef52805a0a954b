"""`duet change --edit`: the patches of one scenario and style made anew, by whoever edits a scratch copy.

Each stage is opened in a shell of the copy, with its old patch applied if that still goes; what has changed
when the shell ends is the new patch. A patch whose shell ends with an error is left alone.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import typer

from lab.change.scenarios import ARMS, choose, read_scenarios
from lab.change.tree import Tree
from lab.errors import FAILED, LabError
from lab.long_run import make_folder
from lab.system import project_root


def edit_patches(scenario: str, style: str, folder: Path) -> None:
    """Open every stage in turn, and write its patch. Raises `LabError`."""
    if style not in ARMS:
        raise LabError(f"there is no style {style}: it is one of {', '.join(ARMS)}")
    source = project_root()
    [chosen, *more] = choose(read_scenarios(source), scenario)
    if more or style not in chosen.arms:
        raise LabError(f"--edit takes one scenario that has patches for {style}")
    arm = chosen.arms[style]
    make_folder(folder)
    own = Path(tempfile.mkdtemp(prefix="edit-", dir=folder.resolve()))
    try:
        tree = Tree.copy(source, own / "tree")
        if arm.base is not None:
            tree.apply(arm.base)
        tree.add(chosen.new)
        for stage in arm.stages:
            _edit(tree, stage)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _edit(tree: Tree, patch: Path) -> None:
    try:
        tree.try_out(patch)
    except LabError as error:
        typer.echo(f"{patch} does not apply any more, make it anew by hand: {error}", err=True)
    typer.echo(f"{patch.name}: edit {tree.root}, then leave the shell (exit 1 keeps the old patch)")
    done = subprocess.run([os.environ.get("SHELL", "/bin/sh")], cwd=tree.root, check=False)
    if done.returncode:
        raise LabError(f"{patch.name} is left as it was", FAILED)
    patch.write_text(tree.difference())
    tree.commit(patch.name)
    typer.echo(f"{patch.name} is written")
