"""The path of `make run`: the whole system up, an order in each style, an end that leaves nothing."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil

from lab.story import DEEDS
from tests.support.system import PROCESSES, LiveSystem, eventually, live_system

STYLES = ("orchestration", "choreography")


def test_in_each_style_an_order_becomes_a_mail_a_shipment_and_points_and_sigterm_ends_everything(
    tmp_path: Path,
) -> None:
    with live_system(tmp_path) as system:
        assert set(system.announced["pids"]) == set(PROCESSES)
        for number, style in enumerate(STYLES, start=1):
            [order] = json.loads(system.duet("order", "--style", style, "--json"))["orders"]
            assert (order["style"], order["status"]) == (style, "completed")
            assert {name: step["status"] for name, step in order["steps"].items()} == {
                "email": "succeeded",
                "warehouse": "succeeded",
                "rewards": "succeeded",
            }
            _expect_one_mail(system, order)
            _expect_shipment(system, order, number)
            _expect_points(system, order, number)
            _expect_story(system, order)
        assert system.audit()["exactly_once"] == 6
        _expect_end_that_leaves_nothing(system, signal.SIGTERM)


def test_what_was_done_outlives_a_restart_and_ctrl_c_ends_everything(tmp_path: Path) -> None:
    with live_system(tmp_path) as system:
        orders = json.loads(system.duet("order", "--style", "both", "--count", "2", "--json"))["orders"]
        _expect_end_that_leaves_nothing(system, signal.SIGINT)
        system.start()
        with system.client("checkout") as checkout:
            for order in orders:
                assert checkout.get(f"/checkouts/{order['order_id']}").json() == order
        assert system.audit()["accepted"] == 2


def _expect_end_that_leaves_nothing(system: LiveSystem, number: signal.Signals) -> None:
    begun = system.processes()
    assert {process.pid for process in begun} >= {system.supervisor.pid, *system.announced["pids"].values()}
    assert system.end(number) < 15
    assert system.supervisor.returncode == 0
    assert [process for process in begun if psutil.pid_exists(process.pid)] == []
    assert system.processes() == []


def _expect_one_mail(system: LiveSystem, order: dict[str, Any]) -> None:
    order_id = order["order_id"]
    with system.client("mailbox") as mailbox, system.client("email") as email:

        def messages() -> Any:
            return mailbox.get("/api/messages", params={"order": order_id}).json()["messages"]

        [summary] = eventually(messages, 15, "the confirmation is in the mailbox")
        assert summary["to"] == [order["customer"]["email"]]
        assert summary["message_id"].startswith(f"<{order_id}@")
        mail = mailbox.get(f"/api/messages/{summary['id']}").json()
        for part in (mail["text"], mail["html"]):
            assert order_id in part
            assert "43.48" in part
        assert "<html" in mail["html"]
        assert "<html" not in mail["text"]
        eventually(
            lambda: email.get(f"/emails/{order_id}").json()["delivery"] == "sent", 15, "marked as sent"
        )


def _expect_shipment(system: LiveSystem, order: dict[str, Any], number: int) -> None:
    """It is the `number`-th order of the same kind."""
    with system.client("warehouse") as warehouse:
        shipment = warehouse.get(f"/shipments/{order['order_id']}").json()
        assert shipment["state"] == "preparing"
        assert warehouse.get("/stock/BOOK-1").json()["allocated"] == 2 * number


def _expect_points(system: LiveSystem, order: dict[str, Any], number: int) -> None:
    """It is the customer's `number`-th order of the same sum."""
    with system.client("rewards") as rewards:
        found = rewards.post("/balances/lookup", json={"email": order["customer"]["email"]}).json()
        entries = rewards.get(f"/balances/{found['balance_id']}/entries").json()["entries"]
        assert [entry["points"] for entry in entries] == [43] * number
        assert order["order_id"] in {entry["order_id"] for entry in entries}
        assert found["points"] == 43 * number


def _expect_story(system: LiveSystem, order: dict[str, Any]) -> None:
    """What each service did lies between acceptance and what checkout knows of it."""
    story = json.loads(system.duet("timeline", order["order_id"], "--json"))
    happened = [(event["who"], event["what"].split(" as ")[0]) for event in story["events"]]
    assert happened[0][1].startswith("accepted")
    for name, deed in DEEDS.items():
        assert happened.index((name, deed)) < happened.index(("checkout", f"knows {name}"))
        assert story["services"][name]["verdict"] == "exactly_once"
    assert (story["status"], story["waits_for"]) == ("completed", [])
