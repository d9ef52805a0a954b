"""Proves that rewards doubles points on Fridays, on whatever day it is run.

The rule is a pure function of the changed tree, asked for a Thursday, a Friday and a Saturday. The running
service has to have started after that file was changed, and of fresh orders each entry has to say what the
rule says for the time of the entry. On any day but a Friday, that last part alone would prove nothing.
"""

import argparse
import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from lab.client import Call, Patience, bearer, open_client, pages
from lab.errors import FAILED, LabError
from lab.look import OK, look
from lab.placing import Plan, place_orders
from lab.samples import mixed_order
from lab.synced import SyncedLines
from lab.system import CONDUCTOR, System
from rewards_svc import points

ORDERS = 5
WAIT_S = 60.0
LOOK_S = 10.0
STARTED_WITHIN_S = 2.0  # what Linux tells of a process's start is as exact as its whole seconds of boot time
BEFORE_MIDNIGHT = datetime(2026, 11, 26, 23, 59, 59, 999_999, tzinfo=UTC)  # a Thursday
FRIDAY = datetime(2026, 11, 27, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 28, tzinfo=UTC)


class NotProvedError(Exception):
    """What was seen is not what the change promises."""


class Silent:
    """Who listens to the placing of orders, and says nothing."""

    def accepted(self, order: Any) -> None:
        """An order was accepted."""

    def changed(self, order: Any) -> None:
        """An order has gone on."""

    def not_accepted(self, error: LabError) -> None:
        """An order was not accepted."""


async def prove(system: System, style: str) -> str:
    """What was seen, in a sentence. Raises NotProvedError, or LabError where something cannot be read."""
    days = (BEFORE_MIDNIGHT, FRIDAY, SATURDAY)
    try:
        told = [points.points_for(4348, "GBP", at) for at in days]
    except TypeError:
        raise NotProvedError("the rule does not know the day: points_for takes none") from None
    if told != [43, 86, 43]:
        raise NotProvedError(f"by the rule 43.48 GBP earn {told} points on Thursday, Friday and Saturday")
    if await started_at(system) < changed_at() - STARTED_WITHIN_S:
        raise NotProvedError("the rewards service still runs with what it did before the change")
    async with open_client() as client, SyncedLines(system.accepted_file) as accepted:
        plan = Plan(
            url=system.url(CONDUCTOR),
            body=lambda number: json.dumps(mixed_order(number, rewards_member=True)).encode(),
            count=ORDERS,
            styles=[style],
            follow_s=WAIT_S,
        )
        outcome = await place_orders(client, plan, accepted, Silent())
        if outcome.finished["completed"] != ORDERS:
            raise NotProvedError(f"of {ORDERS} orders {outcome.finished['completed']} were completed")
        doubled = 0
        for order in outcome.orders.values():
            entry = await entry_of(client, system, order)
            at = datetime.fromisoformat(entry["at"])
            right = points.points_for(order["total_minor"], order["currency"], at)
            if not entry["points"] == order["steps"]["rewards"]["result"]["points"] == right:
                raise NotProvedError(f"{order['order_id']} earned {entry['points']} points, not {right}")
            doubled += at.isoweekday() == 5
    return (
        f"by the changed rule 43.48 GBP earn {told[0]} points on a Thursday, {told[1]} on a Friday and "
        f"{told[2]} on a Saturday, rewards has started since that was changed, and the entries of {ORDERS} "
        f"fresh orders say what the rule says for the time of each ({doubled} of them on a Friday)"
    )


def changed_at() -> float:
    """When the file with the rule was written last."""
    return Path(points.__file__).stat().st_mtime


async def started_at(system: System) -> float:
    """When the running rewards service started, by its metrics. Raises LabError."""
    seen = await look(f"{system.url('rewards')}/metrics", LOOK_S)
    if seen is None or seen.status != OK:
        raise LabError("the rewards service does not show its metrics", FAILED)
    for family in text_string_to_metric_families(seen.body.decode()):
        if family.name == "process_start_time_seconds":
            return float(family.samples[0].value)
    raise LabError("the rewards service does not say when it started, as it does on Linux", FAILED)


async def entry_of(client: httpx.AsyncClient, system: System, order: dict[str, Any]) -> dict[str, Any]:
    """The one entry of an order on its balance. Raises NotProvedError if there is none, or more."""
    balance_id = order["steps"]["rewards"]["result"]["balance_id"]
    url = f"{system.url('rewards')}/balances/{balance_id}/entries"
    call = Call("GET", url, bearer(system.tokens().operator))
    found = [
        entry
        async for page in pages(client, call, "entries", Patience(WAIT_S))
        for entry in page
        if entry["order_id"] == order["order_id"]
    ]
    if len(found) != 1:
        raise NotProvedError(f"order {order['order_id']} has {len(found)} entries")
    return found[0]


def main() -> int:
    """Prove it, print what was seen, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port-base", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", choices=("orchestration", "choreography"), required=True)
    told = parser.parse_args()
    try:
        what, proved = asyncio.run(prove(System.locate(told.port_base, told.data), told.style)), True
    except (NotProvedError, LabError) as error:
        what, proved = str(error), False
    print(json.dumps({"proved": proved, "what": what}))
    return 0 if proved else 1


if __name__ == "__main__":
    raise SystemExit(main())
