"""What revisions brought: ratios to the one before, and a small run on the conductors of two trees."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.bench import steps
from lab.bench.arms import durable
from lab.bench.children import free_ports
from lab.bench.generator import Measurement
from lab.bench.revision import find_commit
from lab.bench.steps import compare, order_of
from lab.bench.steps_report import sentence
from lab.errors import LabError
from tests.support.system import ROOT


def measured(arm: str, clients: int, cpu_ms: float) -> Measurement:
    cpu_s = {"conductor": cpu_ms * 8 / 1000}
    return Measurement(arm, clients, 10, 8, 0, {}, 10, 1.0, 8.0, {"p50": 1.0, "p99": 2.0}, cpu_s)


def test_each_revision_is_paired_by_round_with_the_one_before_it() -> None:
    arms = ("v1", "v2", "this-tree")
    rounds = [
        measured(arm, clients, drift * cost)
        for drift in (1.0, 3.0, 0.5)
        for clients in (1, 64)
        for arm, cost in zip(arms, (2.0, 1.0, 1.5), strict=True)
    ]
    assert [sentence(step) for step in compare(rounds, arms, (1, 64))] == [
        "CPU of v2 vs v1, clients 1: 0.50 [0.50, 0.50]",
        "CPU of v2 vs v1, clients 64: 0.50 [0.50, 0.50]",
        "CPU of this-tree vs v2, clients 1: 1.50 [1.50, 1.50]",
        "CPU of this-tree vs v2, clients 64: 1.50 [1.50, 1.50]",
    ]


async def test_a_commit_under_two_names_is_refused(tmp_path: Path) -> None:
    shape = steps.Shape(("HEAD", find_commit("HEAD")), 2, 0.2, 0.1, (1,))
    with pytest.raises(LabError, match="names a commit twice"):
        await steps.run(shape, tmp_path, lambda _: None)


def test_every_other_round_goes_backwards_and_each_conductor_is_the_first_once() -> None:
    rounds = ["".join(order_of("abc", number)) for number in range(6)]
    assert rounds == ["abc", "cba", "bca", "acb", "cab", "bac"]


@pytest.mark.e2e
async def test_a_conductor_runs_the_code_of_its_own_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where there is a checkout, too
    other = tmp_path / "tree" / "checkout"
    other.mkdir(parents=True)
    (other / "__init__.py").touch()
    (other / "__main__.py").write_text("raise SystemExit('not ours')\n")
    [port] = free_ports(1)
    async with durable("other", port, {"email": 1}, tmp_path, {}, tmp_path / "tree") as arm:
        async with asyncio.timeout(20):
            await arm.child.process.wait()
    assert (tmp_path / "other.log").read_text() == "not ours\n"


@pytest.mark.e2e
def test_a_small_run_measures_each_revision_and_all_ledgers_balance(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "bench", "conductor", "--against", "HEAD", "--json"]
    small = ["--clients", "4", "--quick", "--pairs", "2", "--seconds", "0.3"]
    where = ["--folder", str(tmp_path / "bench")]
    done = subprocess.run(
        [*command, *small, *where], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["commits"] == {"HEAD": find_commit("HEAD")}
    head = find_commit("HEAD")[:12]
    assert set(told["ledger"]["stored"]) == {head, "this-tree"}
    assert told["ledger"]["balances"], told["ledger"]["problems"]
    assert [(each["arm"], each["before"], each["cpu"]["pairs"]) for each in told["brought"]] == [
        ("this-tree", head, 2)
    ]
    assert list((tmp_path / "bench").iterdir()) == []
