"""`duet compare` on the real system: a tiny run as a person starts it, and faults that it must not miss."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.bench.children import BenchError
from lab.compare.arms import CHOREOGRAPHY, ORCHESTRATION, Arm, target_arm
from lab.compare.rig import Load, rig
from lab.control import call
from lab.system import CONDUCTOR, System
from lab.targets import read_target
from tests.support.compare_schema import COMPARE
from tests.support.system import ROOT

RUN_S = 120.0
LOAD = Load(60.0, 0.3, 1.0)


def test_a_tiny_comparison_is_a_document_that_others_can_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--rounds", "2", "--seconds", "1.5", "--folder", str(tmp_path), "--out", str(out), "--json"]
    ended = subprocess.run(
        [sys.executable, "-m", "lab", "compare", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    document = json.loads(ended.stdout)
    jsonschema.validate(document, COMPARE)
    assert document == json.loads((out / "compare.json").read_text())
    assert document["balanced"], document["troubles"]
    # a busy machine may hold up the generator: then the run has failed, and says so
    assert all("its generator was" in trouble for trouble in document["troubles"])
    assert ended.returncode == (0 if document["passed"] else 1)
    [bare] = document["scenarios"]
    windows = bare["windows"]
    assert [(w["arm"], w["round"]) for w in sorted(windows, key=lambda w: (w["round"], w["arm"]))] == [
        (style, number) for number in (1, 2) for style in (CHOREOGRAPHY, ORCHESTRATION)
    ]
    assert all(w["due"] == w["accepted"] == w["completed"] == w["ledger"]["accepted"] for w in windows)
    told = {w["arm"]: w for w in windows}
    assert 2 < told[ORCHESTRATION]["calls_per_order"] <= 3  # the third is for members only
    assert told[ORCHESTRATION]["messages_per_order"] == told[CHOREOGRAPHY]["calls_per_order"] == 0
    assert told[CHOREOGRAPHY]["messages_per_order"] >= 3
    assert told[ORCHESTRATION]["memory_mb"] == {}  # one system serves both
    assert {figure["slug"] for figure in bare["figures"]} >= {"ack_p50", "completion_p99", "cpu"}
    assert len(list((out / "rows").glob("*.csv"))) == 4
    assert not list(tmp_path.glob("compare-*"))


async def test_what_goes_wrong_on_a_system_is_found(tmp_path: Path) -> None:
    """A loss, a target's two clocks and a death, one after the other on one system."""
    async with rig(tmp_path) as measuring, measuring.system({}, fresh=True) as bench:
        await bench.measure(Arm(CHOREOGRAPHY, CHOREOGRAPHY), LOAD, 1, 20)
        [(_, window)] = await bench.reckon()
        assert window.ledger["balances"]
        assert window.completion_ms["p50"] >= window.ack_ms["p50"] > 0
        assert set(window.costs.memory_mb) >= {"checkout", "email", "warehouse", "rewards", "broker"}

        system = System.locate(None, tmp_path / "system-1" / "duet")
        theirs = target_arm(read_target("theirs", _describe(system, tmp_path)))
        assert theirs.target is not None
        target = measuring.target(theirs.target)
        await target.measure(theirs, LOAD, 1, 21)
        [(_, seen)] = await target.reckon()
        assert (seen.ledger["balances"], seen.unfinished, seen.errors) == (True, 0, {})
        assert seen.system_cpu_ms is None

        await bench.measure(Arm(ORCHESTRATION, ORCHESTRATION), LOAD, 2, 22)
        with closing(sqlite3.connect(system.database_file("email"))) as database, database:
            [(lost,)] = database.execute("SELECT order_id FROM confirmations ORDER BY seq DESC LIMIT 1")
            database.execute("DELETE FROM confirmations WHERE order_id = ?", (lost,))
        [(_, window)] = await bench.reckon()
        assert window.trouble == "its ledger does not balance (1 missing)"
        assert window.unfinished == 1
        assert window.ledger["ids"]["email"] == {"missing": [lost]}

        call(system, "kill", "rewards")
        with pytest.raises(BenchError, match=r"choreography, round 3: .*rewards again"):
            await bench.measure(Arm(CHOREOGRAPHY, CHOREOGRAPHY), LOAD, 3, 23)


def _describe(system: System, folder: Path) -> Path:
    """The running system as a target of somebody else's."""
    told: dict[str, Any] = {name: system.url(name) for name in ("email", "warehouse", "rewards")}
    lines = [f'checkout = "{system.url(CONDUCTOR)}"', 'style = "choreography"']
    lines.append(f'operator_token = "{system.tokens().operator}"')
    for name, url in told.items():
        lines += [f"[effects.{name}]", f'url = "{url}/effects"']
    file = folder / "theirs.toml"
    file.write_text("\n".join(lines))
    return file
