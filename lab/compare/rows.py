"""Each window's orders as CSV, so that anybody can compute another figure from what was measured."""

import csv
import re
from pathlib import Path

from lab.compare.windows import Raw

HEAD = ("order_id", "intended_at", "ack_ms", "completion_ms", "measured")
FOLDER = "rows"
UNSAFE = re.compile(r"[^a-z0-9._-]+")


def forget_rows(out: Path) -> None:
    """Remove what an earlier run has kept there: two runs are not to be taken for one."""
    for file in (out / FOLDER).glob("*.csv"):
        file.unlink()


def keep_rows(out: Path, scenario: str, raw: Raw) -> None:
    """Write a window's orders; an empty completion is one that never came.

    `measured` is 0 for those of the warm-up, which are in no figure.
    """
    opens_at, closes_at = raw.arrivals.opens_at, raw.arrivals.closes_at
    folder = out / FOLDER
    folder.mkdir(exist_ok=True)
    name = UNSAFE.sub("-", f"{scenario}-{raw.round}-{raw.arm}".lower())
    with (folder / f"{name}.csv").open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(HEAD)
        for order_id, intended, ack_ms, _ in raw.rows:
            end = raw.done.get(order_id)
            took = "" if end is None else f"{(end - intended) * 1000:.3f}"
            measured = int(opens_at <= intended < closes_at)
            writer.writerow((order_id, f"{intended:.6f}", f"{ack_ms:.3f}", took, measured))
