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


@dataclass(frozen=True, slots=True)
class Touched:
    """A file that a change touches, with its lines added and deleted; `new` if it was not there before."""

    path: str
    added: int
    deleted: int
    new: bool

    @property
    def lines(self) -> int:
        """Lines added and deleted together."""
        return self.added + self.deleted

    @property
    def is_product(self) -> bool:
        """Whether it is code or deployment of the product: no test, no document, no tool of the lab."""
        return not self.path.startswith((*OTHERS, LAB)) and not self.path.endswith(".md")


class Tree:
    """A copy at `root`. `start` names the state that changes are counted from."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.start = "HEAD"

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

    def begin(self) -> None:
        """From here on changes are counted."""
        self.start = self.git("rev-parse", "HEAD").strip()

    def try_out(self, patch: Path) -> None:
        """Apply a patch, wholly or not at all; an empty one changes nothing. Raises `LabError`."""
        if patch.stat().st_size:
            self.git("apply", "--index", "--whitespace=nowarn", str(patch.resolve()))

    def apply(self, patch: Path) -> None:
        """Apply a patch for good. Raises `LabError`."""
        self.try_out(patch)
        self.commit(patch.name)

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

    def touched(self, but: Iterable[str] = ()) -> list[Touched]:
        """The files that have changed since the start, but for those below the folders `but`."""
        status = self.git("diff", "--name-status", "--no-renames", self.start, "HEAD")
        new = {line.split("\t")[1] for line in status.splitlines() if line.startswith("A")}
        counts = self.git("diff", "--numstat", "--no-renames", self.start, "HEAD")
        rows = [line.split("\t") for line in counts.splitlines()]
        skipped = tuple(f"{name}/" for name in but)
        return [
            Touched(path, int(added), int(deleted), path in new)
            for added, deleted, path in rows
            if not (skipped and path.startswith(skipped)) and added.isdigit()
        ]

    def digests(self) -> dict[str, str]:
        """What is deployed, by name: each service by its code and the plumbing's, the broker by rights."""
        plumbing = self._digest(PLUMBING)
        services = discover_services(self.root)
        told = {each.name: f"{self._digest(each.package)} {plumbing}" for each in services}
        return told | {
            BROKER: hashlib.sha256(repr(sorted(read_rights(self.root).items())).encode()).hexdigest()
        }

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
        """An environment in which the tree's own code runs, without the caller's settings for services."""
        names = [service.name.upper() for service in discover_services(self.root)]
        ours = tuple(f"{name}_" for name in (*names, "MAILBOX", "DUET"))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
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
        raise LabError("the change lab needs git: install it, and clone the project with it") from None
    except subprocess.TimeoutExpired as error:
        raise LabError(f"git {arguments[0]} took over {GIT_S:.0f} s", FAILED) from error
    if done.returncode:
        raise LabError(f"git {' '.join(arguments)} in {folder}: {done.stderr.strip()}", FAILED)
    return done.stdout
