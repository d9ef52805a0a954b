"""Shows that the total is called `amount_minor` now: in the event, or in the command that rewards takes.

Fresh orders must complete with the points that they earn. Choreographed, their events are read from the
stream; orchestrated, rewards is asked both ways about an order that it has credited already, which changes
nothing.
"""

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import nats.errors

from lab.broker import connect
from lab.client import Answer, Call, Patience, bearer, expect, open_client, send
from lab.errors import LabError
from lab.ledger import IN_PROGRESS
from lab.reading import get_checkout
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

NEW, OLD = "amount_minor", "total_minor"
ORDERS = 10
PATIENCE = Patience(30.0)
ALL_S = 120.0
POLL_S = 0.25
WITHOUT_MINOR_UNITS = ("JPY",)  # of the currencies of the samples


async def prove(system: System, style: str) -> tuple[bool, str]:
    """Whether the new name is in use, and what was seen."""
    async with asyncio.timeout(ALL_S), open_client() as client:
        if style == "choreography":
            return await _of_the_event(client, system)
        return await _of_the_command(client, system)


async def _of_the_event(client: httpx.AsyncClient, system: System) -> tuple[bool, str]:
    async with connect(system) as jetstream:
        before = (await jetstream.stream_info("ORDERS")).state.last_seq
        orders = await _place(client, system, "choreography")
        last = (await jetstream.stream_info("ORDERS")).state.last_seq
        told = {}
        for sequence in range(before + 1, last + 1):
            message = await jetstream.get_msg("ORDERS", sequence)
            data = json.loads(message.data or b"{}").get("data", {})
            told[data.get("order_id")] = data
    events = [told.get(order["order_id"], {}) for order in orders]
    new = sum(
        event.get(NEW) == order[OLD] and OLD not in event for event, order in zip(events, orders, strict=True)
    )
    right = _rightly_completed(orders)
    what = (
        f"of {ORDERS} fresh orders {new} have an event with the right {NEW} and no {OLD}, "
        f"and {right} completed with the points that they earn"
    )
    return new == right == ORDERS, what


async def _of_the_command(client: httpx.AsyncClient, system: System) -> tuple[bool, str]:
    orders = await _place(client, system, "orchestration")
    credited = next(order for order in orders if order["customer"]["rewards_member"])
    command = {key: credited[key] for key in ("order_id", "customer", "currency")}
    old = await _tell_rewards(client, system, {**command, OLD: credited[OLD]})
    new = await _tell_rewards(client, system, {**command, NEW: credited[OLD]})
    same = new.body.get("points") == credited["steps"]["rewards"].get("result", {}).get("points")
    right = _rightly_completed(orders)
    what = (
        f"rewards answers {new.status} to {NEW} and {old.status} to {OLD}, "
        f"and of {ORDERS} fresh orders {right} completed with the points that they earn"
    )
    return (old.status, new.status, same, right) == (422, 200, True, ORDERS), what


async def _place(client: httpx.AsyncClient, system: System, style: str) -> list[dict[str, Any]]:
    """Place fresh orders; their representations once they are final, or patience is out."""
    async with SyncedLines(system.accepted_file) as accepted:
        orders = [await _place_one(client, system, style, number, accepted) for number in range(ORDERS)]
    return [await _final(client, system, order) for order in orders]


async def _place_one(
    client: httpx.AsyncClient, system: System, style: str, number: int, accepted: SyncedLines
) -> dict[str, Any]:
    headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": "respond-async"}
    url, body = f"{system.url(CONDUCTOR)}/checkouts", json.dumps(mixed_order(number)).encode()
    call = Call("POST", url, lambda _: headers, {"style": style}, body)
    order = expect(await send(client, call, PATIENCE))
    await accepted.add(order["order_id"])
    return order


async def _final(client: httpx.AsyncClient, system: System, order: dict[str, Any]) -> dict[str, Any]:
    for _ in range(int(PATIENCE.total_s / POLL_S)):
        if order["status"] != IN_PROGRESS:
            break
        await asyncio.sleep(POLL_S)
        order = await get_checkout(client, system, order["order_id"], PATIENCE) or order
    return order


async def _tell_rewards(client: httpx.AsyncClient, system: System, command: dict[str, Any]) -> Answer:
    headers = bearer(system.tokens().conductor("rewards"))
    call = Call("POST", f"{system.url('rewards')}/balances", headers, content=json.dumps(command).encode())
    return await send(client, call, PATIENCE)


def _rightly_completed(orders: list[dict[str, Any]]) -> int:
    """How many completed with whole major units as points, or, if not a member's, without any."""
    right = 0
    for order in orders:
        rewards = order["steps"].get("rewards", {})
        minor_units = 1 if order["currency"] in WITHOUT_MINOR_UNITS else 100
        if order["customer"]["rewards_member"]:
            earned = rewards.get("result", {}).get("points") == order[OLD] // minor_units
        else:
            earned = rewards.get("status") == "skipped"
        right += order["status"] == "completed" and earned
    return right


def main() -> int:
    """Print one line of JSON; the exit code is 0 if it is proved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    chosen = parser.parse_args()
    try:
        system = System.locate(chosen.port_base, chosen.data)
        proved, what = asyncio.run(prove(system, chosen.style))
    except (LabError, TimeoutError, nats.errors.Error) as error:
        proved, what = False, f"it could not be seen: {error or type(error).__name__}"
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
