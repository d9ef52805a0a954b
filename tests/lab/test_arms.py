"""The naive publisher and its subscribers, and the trees of the arms; the conductor: test_baselines."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import nats.errors
import pytest
from fastapi import FastAPI

from lab import folder
from lab.arms import ARMS, BOOK, make_tree, read_book
from lab.baselines.book import open_book
from lab.baselines.calls import read_services
from lab.baselines.events import decode_event
from lab.baselines.publisher import publish_with
from lab.baselines.store import OrderStore
from lab.baselines.subscribers import Subscribers
from lab.broker_config import read_rights
from lab.environment import make_environment
from lab.errors import LabError
from lab.system import System, discover_services
from tests.lab.naive import SETTINGS, FakeServices, prepared, submit


class FakeStream:
    """Keeps what is published, or refuses it; `stored`: which orders the store held at that moment."""

    def __init__(self, store: OrderStore) -> None:
        self.events: list[bytes] = []
        self.stored: list[str | None] = []
        self.error: Exception | None = None
        self._store = store

    async def publish(self, payload: bytes) -> None:
        if self.error is not None:
            raise self.error
        order_id, _ = decode_event(payload)
        self.stored.append(await self._store.find(order_id))
        self.events.append(payload)


class Publisher:
    def __init__(self, store: OrderStore, book: Path) -> None:
        self.store = store
        self.stream = FakeStream(store)
        self.book = book
        self.app: FastAPI = publish_with(self.stream.publish, store, open_book(str(book)))

    async def get(self, order_id: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://checkout") as client:
            return await client.get(f"/checkouts/{order_id}")


@pytest.fixture
async def publisher(tmp_path: Path) -> AsyncIterator[Publisher]:
    async with OrderStore(tmp_path / "checkout.db") as store:
        yield Publisher(store, tmp_path / "book")


def listening(services: FakeServices) -> Subscribers:
    return Subscribers(services.client(), read_services(SETTINGS, "NAIVE"))


async def test_the_publisher_commits_the_order_before_it_tells_of_it(publisher: Publisher) -> None:
    response = await submit(publisher.app, prepared(member=False))
    told = response.json()
    assert response.status_code == 202
    assert (told["status"], told["style"]) == ("in_progress", "choreography")
    assert {name: step["status"] for name, step in told["steps"].items()} == {
        "email": "pending",
        "warehouse": "pending",
        "rewards": "skipped",
    }
    [stored] = publisher.stream.stored
    assert stored is not None
    assert json.loads(stored) == told
    assert (await publisher.get(told["order_id"])).json() == told
    assert (await publisher.get("unknown")).status_code == 404


@pytest.mark.parametrize("error", [nats.errors.TimeoutError(), ConnectionResetError()])
async def test_the_publisher_accepts_an_order_of_which_nobody_will_hear(
    publisher: Publisher, error: Exception
) -> None:
    publisher.stream.error = error
    response = await submit(publisher.app, prepared(member=True))
    assert response.status_code == 202
    publisher.stream.error = None
    assert (await publisher.get(response.json()["order_id"])).status_code == 200
    assert publisher.stream.events == []


async def test_the_publisher_tells_of_no_order_that_it_could_not_store(tmp_path: Path) -> None:
    store = OrderStore(tmp_path / "checkout.db")
    stream = FakeStream(store)
    app = publish_with(stream.publish, store, None)
    async with store:
        store._connection.execute("DROP TABLE orders")
        assert (await submit(app, prepared(member=True))).status_code == 500
    assert stream.events == []


async def test_the_publisher_makes_another_order_of_a_repeat_under_the_same_key(publisher: Publisher) -> None:
    services = FakeServices()
    for _ in range(2):
        await submit(publisher.app, prepared(member=True), "a key")
    for event in publisher.stream.events:
        await listening(services).hand_over("email", event)
    made = read_book(publisher.book)["a key"]
    assert len(set(made)) == 2
    assert services.effects["/emails"] == made


async def test_a_subscriber_tells_its_own_service_and_leaves_rewards_alone_for_others(
    publisher: Publisher,
) -> None:
    services = FakeServices()
    await submit(publisher.app, prepared(member=True))
    await submit(publisher.app, prepared(member=False))
    for event in publisher.stream.events:
        for name in ("email", "warehouse", "rewards"):
            await listening(services).hand_over(name, event)
    member, other = (decode_event(event)[0] for event in publisher.stream.events)
    assert services.effects == {
        "/emails": [member, other],
        "/shipments": [member, other],
        "/balances": [member],
    }
    assert "Bearer token-warehouse" in services.tokens


async def test_a_subscriber_logs_what_failed_and_tries_nothing_again(
    publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    services = FakeServices(failing="/shipments")
    await submit(publisher.app, prepared(member=True))
    await listening(services).hand_over("warehouse", publisher.stream.events[0])
    await listening(services).hand_over("warehouse", b'{"nonsense": 1}')
    assert services.calls == 1
    assert len([record for record in caplog.records if "warehouse did not take" in record.message]) == 2


def test_there_are_four_arms_of_which_the_durable_ones_are_chosen_by_style(tmp_path: Path) -> None:
    durable = {arm.name: arm.durable for arm in ARMS}
    assert durable == {
        "orchestration": True,
        "choreography": True,
        "naive-conductor": False,
        "naive-publisher": False,
    }
    assert [arm.style for arm in ARMS] == ["orchestration", "choreography", None, None]
    for arm in ARMS[:2]:
        assert discover_services(make_tree(arm.name, tmp_path / "tree")) == discover_services()
    assert not (tmp_path / "tree").exists()


def test_a_naive_tree_replaces_checkout_and_keeps_the_services(tmp_path: Path) -> None:
    conductor = make_tree("naive-conductor", tmp_path / "conductor")
    publisher = make_tree("naive-publisher", tmp_path / "publisher")
    services = ["checkout", "email", "warehouse", "rewards"]
    assert [service.name for service in discover_services(conductor)] == services
    assert [service.name for service in discover_services(publisher)] == [*services, "subscribers"]
    ours = make_tree("choreography", tmp_path)
    same = {
        service.name: (publisher / service.package).samefile(ours / service.package)
        for service in discover_services(ours)
    }
    assert same == {"checkout": False, "email": True, "warehouse": True, "rewards": True}
    assert (conductor / "checkout" / "__main__.py").exists()
    assert "checkout" not in read_rights(conductor)  # it has no business at the broker


def test_of_the_publisher_s_tree_only_the_subscribers_are_told_of_the_services(tmp_path: Path) -> None:
    tree = make_tree("naive-publisher", tmp_path / "tree")
    system = System(tmp_path / "data", 18000, discover_services(tree))
    system.data.mkdir()
    folder.make_tokens(system)
    folder.make_broker_passwords(system, read_rights(tree))
    told = make_environment(system)
    assert not [name for name in told["checkout"] if name.endswith("WAREHOUSE_URL")]
    assert told["subscribers"]["SUBSCRIBERS_WAREHOUSE_URL"] == system.url("warehouse")
    assert told["subscribers"]["SUBSCRIBERS_WAREHOUSE_TOKEN"] == system.tokens().conductor("warehouse")
    assert read_services(told["subscribers"], "SUBSCRIBERS").keys() == {"email", "warehouse", "rewards"}
    assert BOOK.startswith("CHECKOUT_")  # what begins otherwise would be kept from checkout's process


def test_a_tree_is_made_of_a_known_arm_in_an_empty_folder_only(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no arm naive: it is one of orchestration, "):
        make_tree("naive", tmp_path / "tree")
    (tmp_path / "mine").touch()
    with pytest.raises(LabError, match="holds something"):
        make_tree("naive-conductor", tmp_path)
    with pytest.raises(LabError, match="cannot make the tree"):
        make_tree("naive-conductor", tmp_path / "mine" / "tree")
