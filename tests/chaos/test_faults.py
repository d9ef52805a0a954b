"""`duet faults` on the real processes: both styles keep their promise, and the naive arms do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.system import ROOT, surroundings

RUN_S = 300.0  # twice what it takes on two idle cores, and more
FAULTS = "warehouse-down,reply-lost"


@pytest.mark.timeout(330)
def test_both_styles_outlive_faults_under_which_the_naive_arms_lose_or_double_orders(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "faults", "--only", FAULTS, "--style", "all", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=RUN_S,
        cwd=tmp_path,
        env={**surroundings(), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    document = json.loads((tmp_path / "faults.json").read_text())
    assert document["passed"] is True
    cells = {(cell["fault"], cell["arm"]): cell for cell in document["cells"]}
    assert len(cells) == 8
    for fault in FAULTS.split(","):
        for arm in ("orchestration", "choreography"):
            cell = cells[fault, arm]
            assert cell["sound"], cell
            assert cell["completed"] == cell["intended"] > 100, cell
    down = [cells["warehouse-down", arm] for arm in ("naive-conductor", "naive-publisher")]
    assert down[0]["duplicated"] > 0, down[0]
    assert down[1]["lost"] > 0, down[1]
    assert cells["reply-lost", "naive-conductor"]["duplicated"] > 0, cells["reply-lost", "naive-conductor"]
    assert not list((tmp_path / ".bench").iterdir())  # nothing is left of the systems
