"""The change lab end to end: a change of the project's own made on a running system under load."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import OWN_PREFIXES, ROOT

BOUND_S = 170


def change(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """`duet change` with these arguments; what it says of each experiment. Fails unless all are sound."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN_PREFIXES)}
    done = subprocess.run(
        [sys.executable, "-m", "lab", "change", *arguments, "--json", "--folder", str(folder)],
        cwd=ROOT,
        env=environment,
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
    assert told["broker_told_of_rights"] == 1
    assert told["backfill"]["given"] == told["backfill"]["orders"] > 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "changes.html",
        "changes.md",
        "changes.json",
    }
    assert not list(tmp_path.glob("change-*"))  # scratch copies are gone


@pytest.mark.timeout(BOUND_S + 10)
def test_the_conductor_is_deployed_anew_where_a_fourth_service_is_to_be_called(tmp_path: Path) -> None:
    [careful, careless] = change(tmp_path, "fourth_service", "--style", "orchestration")
    assert [name for _, name, *_ in careful["deployments"]] == ["broker", "invoice", "checkout"]
    assert [name for _, name, *_ in careless["deployments"]] == ["broker", "checkout", "invoice"]
    assert careful["existing_changed"] == ["checkout"]
    assert careful["figures"]["lost"] == careless["figures"]["lost"] == "0"
