"""The change lab end to end: a change of the project's own made on a running system under load."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.system import ROOT, eventually, surroundings

BOUND_S = 170


def running(folder: Path) -> set[str]:
    """The modules that run with their data below a folder."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, IndexError):
            if process.pid != os.getpid() and str(folder) in " ".join(process.environ().values()):
                found.add(process.cmdline()[2])
    return found


def change(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """`duet change` with these arguments; what it says of each experiment. Fails unless all are sound."""
    done = subprocess.run(
        [sys.executable, "-m", "lab", "change", *arguments, "--json", "--folder", str(folder / "work")],
        cwd=ROOT,
        env=surroundings(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told: list[dict[str, Any]] = json.loads(done.stdout)["experiments"]
    return told


@pytest.mark.timeout(BOUND_S + 10)
def test_a_fourth_service_joins_the_dance_while_orders_come_in_and_gets_those_of_before(
    tmp_path: Path,
) -> None:
    [told] = change(tmp_path, "fourth_service", "--style", "choreography", "--out", str(tmp_path / "out"))
    figures = told["figures"]
    assert (figures["ES"], figures["K"], figures["R"]) == ("0", "0", "0")
    assert (figures["lost"], figures["doubled"], figures["refused"]) == ("0", "0", "0")
    assert [name for _, name, *_ in told["deployments"]] == ["broker", "invoice"]
    assert told["backfill"]["given"] == told["backfill"]["orders"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "changes.html",
        "changes.md",
        "changes.json",
    }
    assert list((tmp_path / "work").iterdir()) == []  # scratch copies are gone


def test_a_change_that_is_told_to_stop_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "change", "behaviour_changes", "--folder", str(tmp_path / "work")]
    with subprocess.Popen(
        command, cwd=ROOT, env=surroundings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as change:
        eventually(lambda: "checkout" in running(tmp_path), 60, "its system runs")
        change.send_signal(signal.SIGTERM)
        change.communicate(timeout=60)
    assert change.returncode == 130
    assert running(tmp_path) == set()
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.chaos
@pytest.mark.timeout(BOUND_S + 10)
def test_the_conductor_is_deployed_anew_where_a_fourth_service_is_to_be_called(tmp_path: Path) -> None:
    [careful, careless] = change(tmp_path, "fourth_service", "--style", "orchestration")
    assert [name for _, name, *_ in careful["deployments"]] == ["broker", "invoice", "checkout"]
    assert [name for _, name, *_ in careless["deployments"]] == ["broker", "checkout", "invoice"]
    assert careful["existing_changed"] == ["checkout"]
    assert careful["figures"]["lost"] == careless["figures"]["lost"] == "0"
