"""What the fault tests do to a running system, and how they place an order and wait for its end.

Each trouble is a context: it lasts as long as the block, and is taken back whatever becomes of the test.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import httpx

from lab.wire.control import read_weather, set_weather
from lab.wire.weather import CLEAR
from tests.support.system import ORDER, LiveSystem, eventually

PARTICIPANTS = ("email", "warehouse", "rewards")
# A participant's death holds its unacknowledged events back for as long as the broker waits for it.
HEAR_SOON = {
    f"{name.upper()}_{key}": value
    for name in PARTICIPANTS
    for key, value in {
        "ACK_WAIT_S": "2",
        "EVENT_RETRY_MIN_S": "0.2",
        "EVENT_RETRY_MAX_S": "0.5",
        "DATABASE_TIMEOUT_S": "1",
    }.items()
}


@contextmanager
def stopped(system: LiveSystem, name: str) -> Iterator[None]:
    """The process has ended, and stays so."""
    system.duet("stop", name)
    try:
        yield
    finally:
        system.duet("start", name)


@contextmanager
def paused(system: LiveSystem, name: str) -> Iterator[None]:
    """The process is frozen: its port takes connections, and nobody answers."""
    system.duet("pause", name)
    try:
        yield
    finally:
        system.duet("resume", name)


@contextmanager
def locked(system: LiveSystem, name: str) -> Iterator[None]:
    """Somebody holds the database's write lock, as a backup or a person with a shell would."""
    file = system.lab.database_file(name)
    with closing(sqlite3.connect(file, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def make_whole(system: LiveSystem) -> None:
    """Start what a failed test left stopped, resume what it left paused, and end its weather."""
    for name, row in system.rows().items():
        if verb := {"stopped": "start", "paused": "resume"}.get(row["state"]):
            system.duet(verb, name)
    for name in read_weather(system.lab):
        set_weather(system.lab, name, CLEAR)


def place(
    checkout: httpx.Client,
    *,
    style: str | None = None,
    body: Mapping[str, Any] = ORDER,
    wait_s: int | None = None,
    key: str | None = None,
) -> httpx.Response:
    """One `POST /checkouts`, whatever the answer."""
    headers = {"Idempotency-Key": f'"{key or uuid.uuid4()}"'}
    if wait_s is not None:
        headers["Prefer"] = f"wait={wait_s}"
    params = {} if style is None else {"style": style}
    return checkout.post("/checkouts", json=dict(body), headers=headers, params=params)


def place_now(checkout: httpx.Client) -> str:
    """A choreographed order that is accepted at once, whatever the broker does; its id."""
    answer = place(checkout, style="choreography", wait_s=0)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["order_id"])


def until(
    checkout: httpx.Client, order_id: str, status: str = "completed", within_s: float = 30
) -> dict[str, Any]:
    """The order's representation once it has this status."""

    def reached() -> dict[str, Any] | None:
        order: dict[str, Any] = checkout.get(f"/checkouts/{order_id}", headers={"Prefer": "wait=5"}).json()
        return order if order["status"] == status else None

    found: dict[str, Any] = eventually(reached, within_s, f"{order_id} is {status}")
    return found


def in_progress(checkout: httpx.Client) -> int:
    """How many orders are in progress, as far as one page tells."""
    return len(checkout.get("/checkouts", params={"status": "in_progress"}).json()["checkouts"])


def held_up_by(checkout: httpx.Client, order_id: str, name: str) -> dict[str, Any] | None:
    """The order, once only this step is unfinished and says what hinders it."""
    order: dict[str, Any] = checkout.get(f"/checkouts/{order_id}").json()
    steps = order["steps"]
    unfinished = {other: step["status"] for other, step in steps.items() if step["status"] != "succeeded"}
    return order if unfinished == {name: "pending"} and "last_error" in steps[name] else None
