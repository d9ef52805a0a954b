"""Shows that the answer to a fresh order holds the delivery date that the warehouse has stored for it.

One order goes to the warehouse's own country and one abroad; a third one, whose goods are not in stock, must
be promised nothing.
"""

import argparse
import asyncio
import json
import sys
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from lab.client import Answer, Call, Patience, bearer, expect, open_client, send
from lab.errors import LabError
from lab.ledger import IN_PROGRESS
from lab.reading import get_checkout
from lab.samples import ADDRESSES, sample_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System

FIELD = "promised_delivery"
BACKORDERED_SKU = "BACKORDER-ME"  # never in stock at the warehouse of `duet up`
PATIENCE = Patience(30.0, try_s=15.0)
ALL_S = 120.0
POLL_S = 0.25


async def prove(system: System, style: str) -> tuple[bool, str]:
    """Whether the answers hold the warehouse's dates, and what was seen."""
    home, abroad, backordered = (sample_order() for _ in range(3))
    abroad["ship_to"] = {"name": "Ada Lovelace", **ADDRESSES[1]}
    backordered["lines"][0]["sku"] = BACKORDERED_SKU
    seen, proved = [], True
    async with asyncio.timeout(ALL_S), open_client() as client:
        for what, body in (("at home", home), ("abroad", abroad), ("backordered", backordered)):
            answer = await _place(client, system, style, body)
            told, read = answer.body, await _read(client, system, answer.body)
            stored = await _shipment(client, system, told["order_id"])
            dates = [document.get(FIELD, "nothing") for document in (told, read, stored)]
            promised = all(map(_is_date, dates)) if what != "backordered" else dates == [None] * 3
            proved = proved and answer.status == 201 and promised and len(set(dates)) == 1
            shown = [each or "null" for each in dates]
            seen.append(f"{what} {answer.status} with {shown[0]}, the warehouse says {shown[2]}")
    return proved, f"{FIELD} in the answers: {'; '.join(seen)}"


async def _place(client: httpx.AsyncClient, system: System, style: str, body: dict[str, Any]) -> Answer:
    """Place one order, and wait for its steps; its id is noted for the audit."""
    key = str(uuid.uuid4())
    call = Call(
        "POST",
        f"{system.url(CONDUCTOR)}/checkouts",
        lambda _: {"Idempotency-Key": f'"{key}"', "Prefer": "wait=10"},
        {"style": style},
        json.dumps(body).encode(),
    )
    async with SyncedLines(system.accepted_file) as accepted:
        answer = await send(client, call, PATIENCE)
        await accepted.add(expect(answer)["order_id"])
    return answer


async def _read(client: httpx.AsyncClient, system: System, order: dict[str, Any]) -> dict[str, Any]:
    """The order as it is read anew, once it is final or patience is out."""
    for _ in range(int(PATIENCE.total_s / POLL_S)):
        order = await get_checkout(client, system, order["order_id"], PATIENCE) or order
        if order["status"] != IN_PROGRESS:
            break
        await asyncio.sleep(POLL_S)
    return order


async def _shipment(client: httpx.AsyncClient, system: System, order_id: str) -> dict[str, Any]:
    url = f"{system.url('warehouse')}/shipments/{order_id}"
    return expect(await send(client, Call("GET", url, bearer(system.tokens().operator)), PATIENCE))


def _is_date(told: object) -> bool:
    try:
        return isinstance(told, str) and bool(date.fromisoformat(told))
    except ValueError:
        return False


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
    except (LabError, TimeoutError) as error:
        proved, what = False, f"it could not be seen: {error or type(error).__name__}"
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
