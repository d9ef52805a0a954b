"""What a run has come to, read from all services, without what may differ: ids, times, and the style's name.

Orders stand in the order in which they were placed. After faults, attempts and how far a mail had come when
a service answered are chance as well.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import httpx

from lab.samples import PRODUCTS
from tests.support.faults import PARTICIPANTS
from tests.support.system import LiveSystem

IDS = ("shipment_id", "balance_id")


class Books:
    """Reads the ledgers of one system; `close` it in the end."""

    def __init__(self, system: LiveSystem) -> None:
        self._open = ExitStack()
        names = ("checkout", *PARTICIPANTS, "mailbox")
        self._clients = {name: self._open.enter_context(system.client(name)) for name in names}

    def close(self) -> None:
        """Close its connections."""
        self._open.close()

    def stock(self) -> Counter[str]:
        """By SKU of the samples, how much is allocated now."""
        answers = {sku: self._clients["warehouse"].get(f"/stock/{sku}") for sku, _ in PRODUCTS}
        return Counter({sku: _good(answer)["allocated"] for sku, answer in answers.items()})

    def mailed(self, order_ids: Sequence[str]) -> bool:
        """Whether the confirmation of every order has been handed over."""
        found = (self._found("email", f"/emails/{order_id}") for order_id in order_ids)
        return all(one is not None and one["delivery"] == "sent" for one in found)

    def ledger(self, order_ids: Sequence[str], *, calm: bool) -> list[dict[str, Any]]:
        """One entry for each order: what checkout says of it, and what every service did."""
        done = {name: Counter(self._effects(name)) for name in PARTICIPANTS}
        orders = {order_id: self._order(order_id) for order_id in order_ids}
        return [
            {
                **_told(order, calm=calm),
                "effects": {name: counts[order_id] for name, counts in done.items()},
                "confirmation": self._confirmation(order_id),
                "shipment": self._shipment(order_id),
                "points": self._points(order_id, order["customer"]["email"]),
            }
            for order_id, order in orders.items()
        ]

    def _order(self, order_id: str) -> dict[str, Any]:
        order: dict[str, Any] = _good(self._clients["checkout"].get(f"/checkouts/{order_id}"))
        return order

    def _confirmation(self, order_id: str) -> dict[str, Any] | None:
        found = self._found("email", f"/emails/{order_id}")
        if found is None:
            return None
        messages = (
            self._clients["mailbox"].get("/api/messages", params={"order": order_id}).json()["messages"]
        )
        return {"to": found["to"], "mails": len({message["message_id"] for message in messages})}

    def _shipment(self, order_id: str) -> dict[str, Any] | None:
        found = self._found("warehouse", f"/shipments/{order_id}")
        return found and {key: found[key] for key in ("state", "lines", "ship_to")}

    def _points(self, order_id: str, email: str) -> list[int]:
        balance = self._clients["rewards"].post("/balances/lookup", json={"email": email})
        if balance.status_code == 404:
            return []
        path = f"/balances/{balance.json()['balance_id']}/entries"
        entries = list(self._pages("rewards", path, "entries"))
        assert sum(entry["points"] for entry in entries) == balance.json()["points"]
        return [entry["points"] for entry in entries if entry["order_id"] == order_id]

    def _effects(self, name: str) -> Iterator[str]:
        return (effect["order_id"] for effect in self._pages(name, "/effects", "effects"))

    def _found(self, name: str, path: str) -> dict[str, Any] | None:
        answer = self._clients[name].get(path)
        if answer.status_code == 404:
            return None
        document: dict[str, Any] = _good(answer)
        return document

    def _pages(self, name: str, path: str, key: str) -> Iterator[Mapping[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            page = _good(self._clients[name].get(path, params={"cursor": cursor} if cursor else {}))
            yield from page[key]
            cursor = page["next"]


def _told(order: Mapping[str, Any], *, calm: bool) -> dict[str, Any]:
    steps = {name: _comparable(step, calm=calm) for name, step in order["steps"].items()}
    facts = {key: order[key] for key in ("status", "total_minor", "customer", "lines", "ship_to")}
    return {**facts, "completed": order["completed_at"] is not None, "steps": steps}


def _comparable(step: Mapping[str, Any], *, calm: bool) -> dict[str, Any]:
    told = {key: step[key] for key in ("status", "reason", "awaited", "last_error") if key in step}
    result = {key: value for key, value in (step.get("result") or {}).items() if key not in IDS}
    if calm and step["status"] == "succeeded":
        return {**told, "result": result, "attempts": step["attempts"]}
    result.pop("delivery", None)
    return {**told, "result": result}


def _good(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()
