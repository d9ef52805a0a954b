"""Another revision of this project, checked out beside it, so that both can run and be compared.

It refuses a revision that git does not know, and one that has no `duet` to start.
"""

from pathlib import Path

from lab.bench.children import ROOT
from lab.change.tree import Tree
from lab.errors import LabError


def find_commit(revision: str) -> str:
    """The full hash of the commit that a revision of our own repository means. Raises LabError."""
    try:
        return Tree(ROOT).git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").strip()
    except LabError as error:
        raise LabError(f"cannot find the revision {revision!r}: {error}") from error


def check_out(commit: str, folder: Path) -> Path:
    """The root of a tree of that commit, made in `folder`, which must not exist. Raises LabError."""
    Tree(ROOT).git("clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder))
    Tree(folder).git("checkout", "--quiet", "--detach", commit)
    if not (folder / "lab" / "__main__.py").is_file():
        raise LabError(f"the revision {commit} has no duet command: nothing of it can be started")
    return folder
