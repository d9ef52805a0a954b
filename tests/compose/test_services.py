"""Our services, started exactly as compose.yaml starts them, on a real PostgreSQL: two replicas, one system.

The last test ends one replica for good, and the fixture ends the rest: so the order of the tests matters.
"""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from lab.processes import wait_stopped
from tests.compose.system import ORDER, STOP_S, ComposeSystem, compose_system, eventually

pytestmark = pytest.mark.e2e

REPLICAS = ("checkout-1", "checkout-2")
STYLES = ("orchestration", "choreography")
SERVICES = ("email", "warehouse", "rewards")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, postgres_server: str) -> Iterator[ComposeSystem]:
    """The whole system, shared by this module's tests."""
    with compose_system(tmp_path_factory.mktemp("compose"), postgres_server) as running:
        yield running


@pytest.fixture
def shop(system: ComposeSystem) -> Iterator[dict[str, httpx.Client]]:
    """The caller's client of each replica."""
    name, _, key = system.secret("caller_keys").partition(":")
    assert name == "shop"
    with system.client("checkout-1", key) as first, system.client("checkout-2", key) as second:
        yield {"checkout-1": first, "checkout-2": second}


def test_orders_placed_through_either_replica_complete_and_have_every_effect(
    system: ComposeSystem, shop: dict[str, httpx.Client]
) -> None:
    placed = [
        place(client, wait_s=30, style=style).json() for client in shop.values() for style in (None, *STYLES)
    ]
    assert [order["status"] for order in placed] == ["completed"] * 6
    assert {order["style"] for order in placed} == set(STYLES)
    ids = [order["order_id"] for order in placed]
    for name in SERVICES:
        assert sorted(effects(system, name) & set(ids)) == sorted(ids)
    operator = system.secret("operator_token")
    with system.client("warehouse", operator) as warehouse, system.client("rewards", operator) as rewards:
        assert warehouse.get(f"/shipments/{ids[0]}").json()["state"] == "preparing"
        balance = rewards.post("/balances/lookup", json={"email": "ada@example.com"}).json()
        assert balance["points"] == 6 * 39
    for order_id in ids:
        eventually(
            lambda order_id=order_id: mail_about(system, order_id) == 1, 30, "a confirmation in the mailbox"
        )


def test_the_public_api_wants_a_caller_s_key(system: ComposeSystem) -> None:
    url = f"{system.url('checkout-1')}/checkouts"
    assert httpx.post(url, json=ORDER).status_code == 401
    wrong = {"Authorization": f"Bearer {system.secret('email_token')}"}
    assert httpx.post(url, json=ORDER, headers=wrong).status_code == 401


def test_one_replica_waits_for_an_order_that_the_other_performs(
    system: ComposeSystem, shop: dict[str, httpx.Client]
) -> None:
    with paused(system, "rewards"), ThreadPoolExecutor(1) as threads:
        placed = place(shop["checkout-2"], prefer="respond-async")
        assert placed.status_code == 202
        waiting = threads.submit(
            shop["checkout-1"].get, placed.headers["Location"], headers={"Prefer": "wait=30"}
        )
        others_done(shop["checkout-2"], placed.headers["Location"])
        assert not waiting.done()
        system.processes["rewards"].send_signal(signal.SIGCONT)
        assert waiting.result(timeout=40).json()["status"] == "completed"


def test_one_key_on_both_replicas_at_once_gives_one_order(
    system: ComposeSystem, shop: dict[str, httpx.Client]
) -> None:
    clients = [shop[name] for name in REPLICAS for _ in range(10)]
    ready = threading.Barrier(len(clients))

    def repeat(client: httpx.Client) -> httpx.Response:
        ready.wait(timeout=10)
        return place(client, key="the same", wait_s=30)

    with ThreadPoolExecutor(len(clients)) as threads:
        answers = list(threads.map(repeat, clients))
    assert {answer.status_code for answer in answers} == {201}
    (order_id,) = {answer.json()["order_id"] for answer in answers}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    for name in SERVICES:
        assert order_id in effects(system, name)


def test_orders_are_accepted_while_the_broker_is_down_and_finished_once_it_is_back(
    system: ComposeSystem, shop: dict[str, httpx.Client]
) -> None:
    system.processes["nats"].kill()
    assert system.processes["nats"].wait(STOP_S) == -signal.SIGKILL
    answers = [
        place(client, prefer="respond-async", style="choreography")
        for client in shop.values()
        for _ in range(3)
    ]
    system.start_broker()
    for path in [answer.headers["Location"] for answer in answers]:
        eventually(lambda path=path: status(shop["checkout-1"], path) == "completed", 40, f"{path} completed")
    ids = {answer.json()["order_id"] for answer in answers}
    for name in SERVICES:
        assert ids <= effects(system, name)


@pytest.mark.parametrize("style", STYLES)
def test_a_participant_s_pause_holds_up_its_own_step_alone(
    system: ComposeSystem, shop: dict[str, httpx.Client], style: str
) -> None:
    with paused(system, "rewards"):
        path = place(shop["checkout-2"], prefer="respond-async", style=style).headers["Location"]
        others_done(shop["checkout-1"], path)
    eventually(lambda: status(shop["checkout-1"], path) == "completed", 40, f"{path} completed")


def test_a_killed_replica_s_orders_are_finished_by_the_other(
    system: ComposeSystem, shop: dict[str, httpx.Client]
) -> None:
    with paused(system, "warehouse"):
        answers = [
            place(shop["checkout-1"], prefer="respond-async", style=style)
            for style in STYLES
            for _ in range(3)
        ]
        paths = [answer.headers["Location"] for answer in answers]
        others_done(shop["checkout-2"], paths[-1], but="warehouse")
        system.processes["checkout-1"].kill()
        assert system.processes["checkout-1"].wait(STOP_S) == -signal.SIGKILL
    for path in paths:
        eventually(lambda path=path: status(shop["checkout-2"], path) == "completed", 40, f"{path} completed")
    ids = {answer.json()["order_id"] for answer in answers}
    for name in SERVICES:
        assert ids <= effects(system, name)


def test_every_service_ends_within_its_grace_when_it_is_told_to(system: ComposeSystem) -> None:
    codes = system.end()
    assert codes.keys() == {"checkout-2", "mailpit", "nats", *SERVICES}
    assert set(codes.values()) == {0}


def place(
    client: httpx.Client,
    *,
    key: str | None = None,
    wait_s: int | None = None,
    prefer: str | None = None,
    style: str | None = None,
) -> httpx.Response:
    """Place the sample order; the answer, which is an acceptance."""
    headers = {"Prefer": prefer or f"wait={wait_s}"} | ({} if key is None else {"Idempotency-Key": key})
    params = {} if style is None else {"style": style}
    answer = client.post("/checkouts", json=ORDER, headers=headers, params=params)
    assert answer.status_code in (201, 202), answer.text
    return answer


def status(client: httpx.Client, path: str) -> str:
    """The order's status."""
    told: str = client.get(path).json()["status"]
    return told


def others_done(client: httpx.Client, path: str, but: str = "rewards") -> None:
    """Wait until all steps but one have succeeded, and that one is still pending."""

    def there() -> bool:
        steps: dict[str, Any] = client.get(path).json()["steps"]
        states = {name: step["status"] for name, step in steps.items()}
        assert states.pop(but) == "pending"
        return set(states.values()) == {"succeeded"}

    eventually(there, 20, f"all steps but {but}")


@contextmanager
def paused(system: ComposeSystem, name: str) -> Iterator[None]:
    """Freeze a service for the length of the block."""
    system.processes[name].send_signal(signal.SIGSTOP)
    wait_stopped(system.processes[name].pid)
    try:
        yield
    finally:
        system.processes[name].send_signal(signal.SIGCONT)


def effects(system: ComposeSystem, name: str) -> set[str]:
    """The orders that a service has acted on; fails if it shows one twice."""
    with system.client(name, system.secret("operator_token")) as client:
        page = client.get("/effects", params={"limit": 1000}).json()
    assert page["next"] is None
    ids = [effect["order_id"] for effect in page["effects"]]
    assert len(ids) == len(set(ids))
    return set(ids)


def mail_about(system: ComposeSystem, order_id: str) -> int:
    """How many messages about an order are in the mailbox."""
    count: int = httpx.get(f"{system.page}/api/messages", params={"order": order_id}).json()["count"]
    return count
