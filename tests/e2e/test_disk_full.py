"""A full disk: under the whole system accepts are refused while it lasts, under the broker none is refused.

Nothing accepted is lost in either. A small file system of its own stands for the disk; to mount it takes
root, so elsewhere this runs in CI only.
"""

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.faults import place_now, until
from tests.support.returns import check_completed_soon_after, now
from tests.support.system import ORDER, RESUME_SOON, LiveSystem, eventually, unstarted_system

SIZE = "48m"  # each of four databases has a log beside it that grows to 4 MiB
MOUNT_S = 10.0
ON_FULL_BROKER = 400  # orders, ten a second
LONG_S = 35.0  # after which the supervisor would have started the broker again
REFUSALS = 3  # seen one after the other, before there is room again
REFUSE_SOON = {"CHECKOUT_DATABASE_TIMEOUT_S": "1"}
BLOCK = bytes(64 * 1024)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="needs root on Linux, to mount a small disk"
    ),
]


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Iterator[LiveSystem]:
    """A system whose data folder is a file system of a few megabytes, not started yet."""
    with _small_disk(tmp_path / "duet"), unstarted_system(tmp_path, RESUME_SOON | REFUSE_SOON) as system:
        yield system


@pytest.fixture
def broker_on_small_disk(tmp_path: Path) -> Iterator[LiveSystem]:
    """A system of which only the broker keeps its store there."""
    with _small_disk(tmp_path / "duet" / "broker"), unstarted_system(tmp_path) as system:
        yield system


@contextlib.contextmanager
def _small_disk(disk: Path) -> Iterator[None]:
    disk.mkdir(parents=True)
    options = f"size={SIZE},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        timeout=MOUNT_S,
    )
    if mounted.returncode != 0:
        pytest.skip(f"may not mount a file system here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=MOUNT_S)


def test_a_full_disk_refuses_orders_while_it_lasts_and_loses_none(on_small_disk: LiveSystem) -> None:
    system = on_small_disk
    system.start()
    filler = system.data / "filler"
    with system.client("checkout") as checkout, system.orders(count=150, rate=15) as orders:
        eventually(lambda: _accepted_some(checkout), 15, "orders come in")
        _fill(filler)
        for _ in range(REFUSALS):
            refused = eventually(lambda: _refusal(checkout), 30, "an order is refused")
            assert refused.status_code == 503, refused.text
            assert refused.headers["Retry-After"]
            assert refused.json()["type"].endswith("/problems/checkout/storage-unavailable")
        assert checkout.get("/healthz").status_code == 200
        killed = system.kill("warehouse")
        filler.unlink()
        placed = orders.finish()
        assert placed["retries"] > 0
        assert placed["completed"] == 150
        assert _place(checkout).is_success
    rows = system.wait_ready("warehouse", but=killed) and system.wait_ready()
    assert {name for name, row in rows.items() if row["restarts"]} == {"warehouse"}
    assert system.audit()["accepted"] == 150


@pytest.mark.chaos
def test_a_full_disk_of_the_broker_refuses_no_order_and_all_complete_once_there_is_room(
    broker_on_small_disk: LiveSystem,
) -> None:
    system = broker_on_small_disk
    system.start()
    first = system.rows()["broker"]["pid"]
    filler = system.lab.broker_folder / "filler"
    with (
        system.client("checkout") as checkout,
        system.orders(ON_FULL_BROKER, 10, "--style", "choreography") as orders,
    ):
        eventually(lambda: _accepted_some(checkout), 15, "orders come in")
        away_at = now()
        _fill(filler)
        eventually(lambda: _publish_failing_s(checkout) > LONG_S, LONG_S + 20, "publishing fails for long")
        assert system.rows()["broker"]["pid"] == first  # to start it again would not help
        meanwhile = place_now(checkout)
        filler.unlink()
        system.wait_ready("broker", but=first)
        back_at = now()
        afterwards = place_now(checkout)
        placed = orders.finish()
        single = [until(checkout, order_id) for order_id in (meanwhile, afterwards)]
    assert placed["retries"] == 0
    check_completed_soon_after(away_at, back_at, [*placed["orders"], *single])
    assert {name for name, row in system.rows().items() if row["restarts"]} == set()
    report = system.audit()
    assert report["orders"] == {"in_progress": 0, "needs_attention": 0, "completed": ON_FULL_BROKER + 2}


def _publish_failing_s(checkout: httpx.Client) -> float:
    told = checkout.get("/metrics").text
    [line] = [line for line in told.splitlines() if line.startswith("publish_failing_seconds ")]
    return float(line.split()[1])


def _fill(filler: Path) -> None:
    """Take all the room there is, to the last byte."""
    with filler.open("wb", buffering=0) as file:
        for size in (len(BLOCK), 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(BLOCK[:size]):
                    pass


def _accepted_some(checkout: httpx.Client) -> bool:
    return len(checkout.get("/checkouts", params={"limit": 20}).json()["checkouts"]) >= 15


def _place(checkout: httpx.Client) -> httpx.Response:
    headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": "respond-async"}
    return checkout.post("/checkouts", json=ORDER, headers=headers)


def _refusal(checkout: httpx.Client) -> httpx.Response | None:
    """A first refused order; what SQLite can write into room that it already has is still accepted."""
    answer = _place(checkout)
    return None if answer.is_success else answer
