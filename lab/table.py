"""The table of processes that `duet ps` prints and `duet up` keeps current."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

STYLES = {
    "running": "green",
    "starting": "yellow",
    "restarting": "red",
    "paused": "magenta",
    "stopped": "dim",
}


def processes_table(rows: Iterable[dict[str, Any]]) -> Table:
    """One line for each process; the rows are those of `Supervisor.rows`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "state", "ready"):
        table.add_column(heading)
    table.add_column("pid", justify="right")
    table.add_column("restarts", justify="right")
    table.add_column("uptime", justify="right")
    table.add_column("url")
    for row in rows:
        state = str(row["state"])
        table.add_row(
            str(row["name"]),
            f"[{STYLES.get(state, '')}]{state}[/]" if state in STYLES else state,
            "[green]yes[/]" if row["ready"] else "[yellow]no[/]",
            "-" if row["pid"] is None else str(row["pid"]),
            str(row["restarts"]),
            _duration(row["uptime_s"]),
            str(row["url"]),
        )
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
