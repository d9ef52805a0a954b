"""Shows that an order can be cancelled: what it brought about is taken back, and other orders are untouched.

It places orders of its own, for customers and articles that nobody else uses, so that balances and stock can
be compared with what they would be without the cancelled ones. It cancels some at once, some when they are
completed, some twice, two while the warehouse is down, and one whose shipment has left. It refuses to wait
without end: for an answer, or for an order to be final.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lab.client import Answer, Call, Patience, RefusedError, bearer, expect, open_client, pages, send
from lab.control import call as control
from lab.errors import LabError
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

ORDERS = 20
CUSTOMERS = 5
AT_ONCE = 4
ANSWER_S = 30.0
FINAL_S = 90.0
LOOK_S = 0.3
WAREHOUSE = "warehouse"


class Disproved(Exception):
    """Something is not as it should be; the message says what."""


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

    def __init__(self, client: httpx.AsyncClient, system: System, style: str, accepted: SyncedLines) -> None:
        self._client = client
        self._system = system
        self._style = style
        self._accepted = accepted
        self._operator = bearer(system.tokens().operator)
        self._run = uuid.uuid4().hex[:12]

    async def show(self) -> str:
        """What was seen; raises Disproved, or LabError where the system refuses."""
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
        return await self._judge(placed)

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
        key = str(uuid.uuid4())
        headers = {"Idempotency-Key": f'"{key}"', "Prefer": "respond-async"}
        url, body = f"{self._system.url(CONDUCTOR)}/checkouts", json.dumps(each.body).encode()
        call = Call("POST", url, lambda _: headers, {"style": self._style}, body)
        each.order = expect(await send(self._client, call, Patience(ANSWER_S)))
        each.order_id = each.order["order_id"]
        await self._accepted.add(each.order_id)
        if each.cancel == "at once":
            await self._cancel(each)

    async def _cancel(self, each: Placed) -> None:
        for _ in range(1 + each.number // 2 % 2):  # every other one twice
            url = f"{self._system.url(CONDUCTOR)}/checkouts/{each.order_id}/cancel"
            call = Call("POST", url, lambda _: {"Prefer": "respond-async"})
            answer = await send(self._client, call, Patience(ANSWER_S))
            if expect(answer).get("cancelled_at") is None:
                raise Disproved(f"order {each.order_id} was not cancelled: HTTP {answer.status}")

    async def _cancel_while_down(self, orders: Sequence[Placed]) -> None:
        """The first is completed already; the second is placed and cancelled while the warehouse is down."""
        await asyncio.to_thread(control, self._system, "stop", WAREHOUSE)
        try:
            await self._cancel(orders[0])
            await self._place(orders[1])
            await self._cancel(orders[1])
            await asyncio.sleep(1.0)
            for each in orders:
                status = (await self._read(each))["status"]
                if status != "in_progress":
                    raise Disproved(f"order {each.order_id} is {status} while the warehouse is down")
        finally:
            await asyncio.to_thread(control, self._system, "start", WAREHOUSE)

    async def _ship(self, each: Placed) -> None:
        for state in ("packed", "shipped"):
            url = f"{self._system.url(WAREHOUSE)}/shipments/{each.order_id}/advance"
            body = json.dumps({"to": state}).encode()
            call = Call("POST", url, self._operator, content=body)
            expect(await send(self._client, call, Patience(ANSWER_S)))

    async def _read(self, each: Placed) -> dict[str, Any]:
        url = f"{self._system.url(CONDUCTOR)}/checkouts/{each.order_id}"
        each.order = expect(await send(self._client, Call("GET", url), Patience(ANSWER_S)))
        return each.order

    async def _wait(self, orders: Sequence[Placed]) -> None:
        deadline = time.monotonic() + FINAL_S
        for each in orders:
            while (await self._read(each))["status"] == "in_progress":
                if time.monotonic() > deadline:
                    raise Disproved(f"order {each.order_id} is still in progress after {FINAL_S:.0f} s")
                await asyncio.sleep(LOOK_S)

    async def _judge(self, placed: Sequence[Placed]) -> str:
        told = {name: await self._reversals(name) for name in ("email", WAREHOUSE, "rewards")}
        recalled = marks = 0
        for each in placed:
            wanted = {"": "completed", "shipped": "needs_attention"}.get(each.cancel, "cancelled")
            if each.order["status"] != wanted:
                raise Disproved(f"order {each.order_id} is {each.order['status']}, not {wanted}")
            state = await self._shipment(each)
            kept = {"": ("preparing", "backordered"), "shipped": ("shipped",)}
            if state not in kept.get(each.cancel, ("recalled", None)):
                raise Disproved(f"the shipment of {each.order_id}, {wanted}, is {state}")
            recalled += state == "recalled"
            marks += state is None
            member = each.body["customer"]["rewards_member"]
            expected = {"email": bool(each.cancel), "rewards": bool(each.cancel) and member}
            expected[WAREHOUSE] = bool(each.cancel) and each.cancel != "shipped"
            for name, owed in expected.items():
                if told[name][each.order_id] != owed:
                    raise Disproved(f"{name} shows {told[name][each.order_id]} reversals of {each.order_id}")
        units = await self._judge_stock(placed)
        points = await self._judge_balances(placed)
        cancelled = sum(1 for each in placed if each.cancel)
        return (
            f"of {len(placed)} orders {cancelled} were cancelled: {recalled} shipments recalled, {marks} "
            f"never prepared, 1 had left and is kept; {cancelled} notices recorded; {units} units allocated "
            f"and {points} points held, just those of the other orders"
        )

    async def _reversals(self, service: str) -> Counter[str]:
        call = Call("GET", f"{self._system.url(service)}/reversals", self._operator, {"limit": 1000})
        found: Counter[str] = Counter()
        async for page in pages(self._client, call, "reversals", Patience(ANSWER_S)):
            found.update(each["order_id"] for each in page)
        return found

    async def _shipment(self, each: Placed) -> str | None:
        url = f"{self._system.url(WAREHOUSE)}/shipments/{each.order_id}"
        answer = await self._get(url)
        return None if answer.status == 404 else str(expect(answer)["state"])

    async def _judge_stock(self, placed: Sequence[Placed]) -> int:
        owed: Counter[str] = Counter()
        for each in placed:
            for line in each.body["lines"]:
                owed[line["sku"]] += 0 if each.cancel else line["quantity"]
        for sku, units in owed.items():
            found = expect(await self._get(f"{self._system.url(WAREHOUSE)}/stock/{sku}"))["allocated"]
            if found != units:
                raise Disproved(f"{found} units of {sku} are allocated, not {units}")
        return owed.total()

    async def _judge_balances(self, placed: Sequence[Placed]) -> int:
        owed: Counter[str] = Counter()
        for each in placed:
            if each.body["customer"]["rewards_member"]:
                points = 0 if each.cancel else each.order["total_minor"] // 100
                owed[each.body["customer"]["email"]] += points
        for email, points in owed.items():
            url, body = (
                f"{self._system.url('rewards')}/balances/lookup",
                json.dumps({"email": email}).encode(),
            )
            call = Call("POST", url, self._operator, content=body)
            answer = await send(self._client, call, Patience(ANSWER_S))
            found = 0 if answer.status == 404 else expect(answer)["points"]
            if found != points:
                raise Disproved(f"a balance is {found} points, not {points}")
        return owed.total()

    async def _get(self, url: str) -> Answer:
        return await send(self._client, Call("GET", url, self._operator), Patience(ANSWER_S))


async def prove(system: System, style: str) -> str:
    """What was seen on this system; raises Disproved or LabError."""
    async with open_client() as client, SyncedLines(system.accepted_file) as accepted:
        return await Proof(client, system, style, accepted).show()


def main() -> int:
    """Print what was seen as one line of JSON; 0 if it proves the change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    chosen = parser.parse_args()
    proved, what = True, ""
    try:
        what = asyncio.run(prove(System.locate(chosen.port_base, chosen.data), chosen.style))
    except RefusedError as error:
        told = str(error).replace("\n", " ")
        proved, what = False, f"the system refused with HTTP {error.answer.status}: {told}"
    except (Disproved, LabError) as error:
        proved, what = False, str(error)
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
