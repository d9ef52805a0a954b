"""Shows that an order can be cancelled: what it brought about is taken back, and other orders are untouched.

It places orders of its own, for customers and articles that nobody else uses, so that balances and stock can
be compared with what they would be without the cancelled ones. It cancels some at once, some when they are
completed, some twice, two while the warehouse is down, and one whose shipment has left. It refuses to wait
without end: for an answer, or for an order to be final.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.change.proving import (
    PATIENCE,
    Asked,
    NotProvedError,
    Shown,
    ask,
    fetch,
    fetch_all,
    prove,
    submit,
    until_final,
)
from lab.client import Call, expect, send
from lab.control import call as control
from lab.samples import mixed_order
from lab.system import CONDUCTOR

ORDERS = 20
CUSTOMERS = 5
AT_ONCE = 4
FINAL_S = 90.0
WAREHOUSE = "warehouse"


@dataclass
class Placed:
    """One order of the proof: what was asked for, and what is to become of it."""

    number: int
    body: dict[str, Any]
    cancel: str = ""  # "at once", "completed", "down", "shipped", or not at all
    order_id: str = ""
    order: dict[str, Any] = field(default_factory=dict)


class Proof:
    """One run against one system, in one style."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._run = uuid.uuid4().hex[:12]

    async def show(self) -> Shown:
        """What was seen; raises NotProvedError, or LabError where the system refuses."""
        placed = [self._plan(number) for number in range(ORDERS + 3)]
        for each in placed[:ORDERS]:
            each.cancel = ("at once", "", "completed", "")[each.number % 4]
        placed[ORDERS].cancel = "shipped"
        placed[ORDERS + 1].cancel = placed[ORDERS + 2].cancel = "down"
        await self._in_turn(placed[: ORDERS + 2], self._place)
        await self._wait([each for each in placed[: ORDERS + 2] if each.cancel != "at once"])
        await self._in_turn([each for each in placed if each.cancel == "completed"], self._cancel)
        await self._ship(placed[ORDERS])
        await self._cancel(placed[ORDERS])
        await self._cancel_while_down(placed[ORDERS + 1 :])
        await self._wait(placed)
        return Shown(True, await self._judge(placed))

    def _plan(self, number: int) -> Placed:
        body = mixed_order(number, rewards_member=number % 5 < 3)
        body["customer"]["email"] = f"proof-{self._run}-{number % CUSTOMERS}@example.com"
        body["currency"] = "GBP"
        for line in body["lines"]:
            line["sku"] = f"PROOF-{self._run}-{line['sku']}"
        return Placed(number, body)

    async def _in_turn(self, orders: Sequence[Placed], work: Any) -> None:
        for start in range(0, len(orders), AT_ONCE):
            await asyncio.gather(*(work(each) for each in orders[start : start + AT_ONCE]))

    async def _place(self, each: Placed) -> None:
        each.order = (await submit(self._asked, each.body)).body
        each.order_id = each.order["order_id"]
        if each.cancel == "at once":
            await self._cancel(each)

    async def _cancel(self, each: Placed) -> None:
        for _ in range(1 + each.number // 2 % 2):  # every other one twice
            url = f"{self._asked.system.url(CONDUCTOR)}/checkouts/{each.order_id}/cancel"
            call = Call("POST", url, lambda _: {"Prefer": "respond-async"})
            answer = await send(self._asked.client, call, PATIENCE)
            if expect(answer).get("cancelled_at") is None:
                raise NotProvedError(f"order {each.order_id} was not cancelled: HTTP {answer.status}.")

    async def _cancel_while_down(self, orders: Sequence[Placed]) -> None:
        """The first is completed already; the second is placed and cancelled while the warehouse is down."""
        await asyncio.to_thread(control, self._asked.system, "stop", WAREHOUSE)
        try:
            await self._cancel(orders[0])
            await self._place(orders[1])
            await self._cancel(orders[1])
            await asyncio.sleep(1.0)
            for each in orders:
                status = (await fetch(self._asked, CONDUCTOR, f"/checkouts/{each.order_id}"))["status"]
                if status != "in_progress":
                    raise NotProvedError(f"order {each.order_id} is {status} while the warehouse is down.")
        finally:
            await asyncio.to_thread(control, self._asked.system, "start", WAREHOUSE)

    async def _ship(self, each: Placed) -> None:
        for state in ("packed", "shipped"):
            path = f"/shipments/{each.order_id}/advance"
            expect(await ask(self._asked, WAREHOUSE, path, {"to": state}))

    async def _wait(self, orders: Sequence[Placed]) -> None:
        found = await until_final(self._asked, [each.order_id for each in orders], FINAL_S)
        for each, order in zip(orders, found, strict=True):
            each.order = order

    async def _judge(self, placed: Sequence[Placed]) -> str:
        told = {name: await self._reversals(name) for name in ("email", WAREHOUSE, "rewards")}
        recalled = marks = 0
        for each in placed:
            wanted = {"": "completed", "shipped": "needs_attention"}.get(each.cancel, "cancelled")
            if each.order["status"] != wanted:
                raise NotProvedError(f"order {each.order_id} is {each.order['status']}, not {wanted}.")
            state = await self._shipment(each)
            kept = {"": ("preparing", "backordered"), "shipped": ("shipped",)}
            if state not in kept.get(each.cancel, ("recalled", None)):
                raise NotProvedError(f"the shipment of {each.order_id}, {wanted}, is {state}.")
            recalled += state == "recalled"
            marks += state is None
            member = each.body["customer"]["rewards_member"]
            expected = {"email": bool(each.cancel), "rewards": bool(each.cancel) and member}
            expected[WAREHOUSE] = bool(each.cancel) and each.cancel != "shipped"
            for name, owed in expected.items():
                if told[name][each.order_id] != owed:
                    raise NotProvedError(
                        f"{name} shows {told[name][each.order_id]} reversals of {each.order_id}."
                    )
        units = await self._judge_stock(placed)
        points = await self._judge_balances(placed)
        cancelled = sum(1 for each in placed if each.cancel)
        return (
            f"of {len(placed)} orders {cancelled} were cancelled: {recalled} shipments recalled, {marks} "
            f"never prepared, 1 had left and is kept; {cancelled} notices recorded; {units} units allocated "
            f"and {points} points held, just those of the other orders."
        )

    async def _reversals(self, service: str) -> Counter[str]:
        told = await fetch_all(self._asked, service, "/reversals", "reversals")
        return Counter(each["order_id"] for each in told)

    async def _shipment(self, each: Placed) -> str | None:
        answer = await ask(self._asked, WAREHOUSE, f"/shipments/{each.order_id}")
        return None if answer.status == 404 else str(expect(answer)["state"])

    async def _judge_stock(self, placed: Sequence[Placed]) -> int:
        owed: Counter[str] = Counter()
        for each in placed:
            for line in each.body["lines"]:
                owed[line["sku"]] += 0 if each.cancel else line["quantity"]
        for sku, units in owed.items():
            found = (await fetch(self._asked, WAREHOUSE, f"/stock/{sku}"))["allocated"]
            if found != units:
                raise NotProvedError(f"{found} units of {sku} are allocated, not {units}.")
        return owed.total()

    async def _judge_balances(self, placed: Sequence[Placed]) -> int:
        owed: Counter[str] = Counter()
        for each in placed:
            if each.body["customer"]["rewards_member"]:
                points = 0 if each.cancel else each.order["total_minor"] // 100
                owed[each.body["customer"]["email"]] += points
        for email, points in owed.items():
            answer = await ask(self._asked, "rewards", "/balances/lookup", {"email": email})
            found = 0 if answer.status == 404 else expect(answer)["points"]
            if found != points:
                raise NotProvedError(f"a balance is {found} points, not {points}.")
        return owed.total()


async def check(asked: Asked) -> Shown:
    """What was seen on this system; raises NotProvedError or LabError."""
    return await Proof(asked).show()


if __name__ == "__main__":
    prove(check)
