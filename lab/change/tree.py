"""A scratch copy of the project's tree, in which patches are applied and what they change is counted.

It is a git repository of its own, so that a patch is applied as anybody would apply it, and never to the
project's own files. What is deployed is told apart by digest: a service is the code of its package and of the
plumbing, and the broker the rights that all `service.toml` ask for.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.broker_config import read_rights
from lab.errors import FAILED, LabError
from lab.system import BROKER, discover_services

PLUMBING = "servicekit"
GIT_S = 60.0
COMMAND_S = 180.0
# What git is told by the environment, or by the user's own settings, must not reach a scratch repository.
AUTHOR = ("-c", "user.name=duet", "-c", "user.email=duet@localhost", "-c", "commit.gpgsign=false")
OTHERS = ("tests/", "docs/", "changes/")
LAB = "lab/"
SWITCH = "CHECKOUT_BATCHING"  # changes are tried with batching or without, as the caller says


@dataclass(frozen=True, slots=True)
class Touched:
    """A file that a change touches, with its lines added and deleted."""

    path: str
    added: int
    deleted: int

    @property
    def lines(self) -> int:
        """Lines added and deleted together."""
        return self.added + self.deleted

    @property
    def is_product(self) -> bool:
        """Whether it is code or deployment of the product: no test, no document, no tool of the lab."""
        return not self.path.startswith((*OTHERS, LAB)) and not self.path.endswith(".md")


@dataclass(frozen=True, slots=True)
class Digest:
    """What a deployed thing is made of: its own code, and the plumbing that all services share."""

    own: str
    plumbing: str


def together(stages: Iterable[Iterable[Touched]]) -> list[Touched]:
    """The files that stages touch, each once: a line that one adds and a later one deletes counts twice."""
    added: Counter[str] = Counter()
    deleted: Counter[str] = Counter()
    for each in (each for stage in stages for each in stage):
        added[each.path] += each.added
        deleted[each.path] += each.deleted
    return [Touched(path, added[path], deleted[path]) for path in sorted(added.keys() | deleted.keys())]


class Tree:
    """A copy at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def copy(cls, source: Path, root: Path) -> "Tree":
        """Copy what git holds of `source`, and what it would not ignore; raise `LabError` without git."""
        listed = _git(source, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            origin, target = source / name, root / name
            if origin.is_file() and not name.startswith("changes/"):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, target)
        tree = cls(root)
        tree.git("init", "-q", "--initial-branch=main")
        tree.commit("the tree as it is")
        return tree

    def git(self, *arguments: str) -> str:
        """Run git in the copy; what it prints. Raises `LabError` with its words."""
        return _git(self.root, *AUTHOR, *arguments)

    def commit(self, what: str) -> None:
        """Make the present state one that can be named."""
        self.git("add", "--all", ".")
        self.git("commit", "-q", "--no-verify", "--allow-empty", "-m", what)

    def try_out(self, patch: Path) -> None:
        """Apply a patch, wholly or not at all; an empty one changes nothing. Raises `LabError`."""
        if patch.stat().st_size:
            self.git("apply", "--index", "--whitespace=nowarn", str(patch.resolve()))

    def apply(self, patch: Path) -> list[Touched]:
        """Apply a patch for good; the files that it touches. Raises `LabError`."""
        self.try_out(patch)
        self.commit(patch.name)
        counts = self.git("diff", "--numstat", "--no-renames", "HEAD~1", "HEAD")
        rows = [line.split("\t") for line in counts.splitlines()]
        return [Touched(path, int(added), int(deleted)) for added, deleted, path in rows if added.isdigit()]

    def difference(self) -> str:
        """What has changed since the last commit, as a patch."""
        self.git("add", "--all", ".")
        return self.git("diff", "--cached", "--no-color", "--no-ext-diff", "HEAD")

    def add(self, folders: Iterable[Path]) -> None:
        """Add the folders of new services."""
        for folder in folders:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(folder, self.root / folder.name, ignore=ignored)
        self.commit("new services")

    def digests(self) -> dict[str, Digest]:
        """What is deployed, by name: each service, and the broker by the rights of its users."""
        plumbing = self._digest(PLUMBING)
        told = {
            each.name: Digest(self._digest(each.package), plumbing) for each in discover_services(self.root)
        }
        rights = repr(sorted(read_rights(self.root).items())).encode()
        return told | {BROKER: Digest(hashlib.sha256(rights).hexdigest(), "")}

    def run(
        self, *arguments: str, env: Mapping[str, str], timeout_s: float = COMMAND_S
    ) -> tuple[int, str, str]:
        """Run Python in the tree to its end: exit code, output, errors. Raises `LabError` without an end."""
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=self.root,
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{' '.join(arguments)}: no end within {timeout_s:.0f} s", FAILED) from error
        return done.returncode, done.stdout, done.stderr

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """An environment in which the tree's own code runs, without the caller's settings but `SWITCH`."""
        names = [service.name.upper() for service in discover_services(self.root)]
        ours = tuple(f"{name}_" for name in (*names, "MAILBOX", "DUET"))
        kept = {
            name: value for name, value in os.environ.items() if name == SWITCH or not name.startswith(ours)
        }
        root = str(self.root)
        return kept | {"PYTHONPATH": root, "DUET_ROOT": root, "PYTHONSAFEPATH": "1"} | dict(more)

    def _digest(self, package: str) -> str:
        digest = hashlib.sha256()
        for path in sorted((self.root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.name != "service.toml":
                digest.update(f"{path.relative_to(self.root)}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def _git(folder: Path, *arguments: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    alone = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=clean | alone,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_S,
            check=False,
        )
    except FileNotFoundError:
        raise LabError("this needs git: install it, and clone the project with it") from None
    except subprocess.TimeoutExpired as error:
        raise LabError(f"git {arguments[0]} took over {GIT_S:.0f} s", FAILED) from error
    if done.returncode:
        raise LabError(f"git {' '.join(arguments)} in {folder}: {done.stderr.strip()}", FAILED)
    return done.stdout
