"""The naive arms on the real services: fine while nothing fails; then one doubles, and the other loses."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from lab.arms import BOOK, make_tree, read_book
from tests.support.system import ORDER, LiveSystem, eventually, live_system

EFFECTS = ("email", "warehouse", "rewards")
TRIES = 3


class Arm:
    """A naive arm that runs; its clients repeat, under the order's own key, what was not accepted."""

    def __init__(self, system: LiveSystem, book: Path) -> None:
        self.system = system
        self._book = book

    def place(self, *keys: str) -> list[int]:
        """Place an order for each key and return the last status of each."""
        return [self._place(key) for key in keys]

    def effects(self, service: str) -> Counter[str]:
        """How many effects a service has for what clients meant, by key."""
        keys = {order_id: key for key, made in read_book(self._book).items() for order_id in made}
        with self.system.client(service) as client:
            page = client.get("/effects", params={"limit": 1000}).json()
        return Counter(keys[effect["order_id"]] for effect in page["effects"])

    def wait_for(self, *keys: str) -> None:
        """Wait until these have all their effects."""
        wanted = set(keys)
        eventually(
            lambda: all(self.effects(service).keys() >= wanted for service in EFFECTS), 15, "all effects"
        )

    def _place(self, key: str) -> int:
        headers = {"Idempotency-Key": key}
        with self.system.client("checkout") as client:
            for _ in range(TRIES):
                status = client.post("/checkouts", json=dict(ORDER), headers=headers).status_code
                if status < httpx.codes.INTERNAL_SERVER_ERROR:
                    break
        return status


@contextmanager
def running(name: str, folder: Path) -> Iterator[Arm]:
    tree, book = make_tree(name, folder / "tree"), folder / "book"
    with live_system(folder, {"DUET_ROOT": str(tree), BOOK: str(book)}) as system:
        yield Arm(system, book)


def test_the_naive_conductor_doubles_the_orders_of_clients_who_repeat(tmp_path: Path) -> None:
    with running("naive-conductor", tmp_path) as arm:
        well = [f"well {number}" for number in range(10)]
        assert arm.place(*well) == [201] * 10
        for service in EFFECTS:
            assert arm.effects(service) == dict.fromkeys(well, 1)

        arm.system.duet("stop", "warehouse")
        assert arm.place("ill 1", "ill 2") == [502, 502]
        tried = dict.fromkeys(well, 1) | {"ill 1": TRIES, "ill 2": TRIES}
        eventually(lambda: arm.effects("email") == tried, 15, "what the last tries called for is done")

        arm.system.duet("start", "warehouse")
        arm.system.wait_ready("warehouse")
        assert arm.place("ill 1", "after") == [201, 201]
        assert arm.effects("email")["ill 1"] == TRIES + 1
        assert arm.effects("rewards")["ill 1"] == TRIES + 1
        assert arm.effects("warehouse") == dict.fromkeys([*well, "ill 1", "after"], 1)


def test_the_naive_publisher_loses_what_a_service_could_not_take(tmp_path: Path) -> None:
    with running("naive-publisher", tmp_path) as arm:
        well = [f"well {number}" for number in range(10)]
        assert arm.place(*well) == [202] * 10
        arm.wait_for(*well)

        arm.system.duet("stop", "warehouse")
        assert arm.place("lost") == [202]
        log = arm.system.lab.log_file("subscribers")
        eventually(lambda: "warehouse did not take its event" in log.read_text(), 15, "the loss is logged")

        arm.system.duet("start", "warehouse")
        arm.system.wait_ready("warehouse")
        arm.system.kill("subscribers")  # their places in the stream outlive them
        assert arm.place("heard later") == [202]
        arm.wait_for("heard later")
        assert arm.effects("email") == dict.fromkeys([*well, "lost", "heard later"], 1)
        assert arm.effects("warehouse") == dict.fromkeys([*well, "heard later"], 1)

        arm.system.wipe()
        arm.system.wait_ready()
        assert arm.place("unheard") == [202]  # the stream was declared at the start, and is gone
        log = arm.system.lab.log_file("checkout")
        eventually(lambda: "was not published" in log.read_text(), 15, "the event is given up")
        assert "unheard" not in arm.effects("email")
