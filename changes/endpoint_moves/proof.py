"""Shows on a live system that the warehouse takes shipments at /v2/shipments, and no more at /shipments.

Ten fresh orders are placed in the style asked for; what the warehouse has counted at each path since says how
their shipments came about. Then the old path is tried, and one order's command is repeated at the new one,
which must answer with the shipment that is there already.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lab.change.proving import Asked, Shown, place, prove, samples, tell
from lab.commands import command_for
from lab.ledger import COMPLETED
from lab.samples import mixed_order

WAREHOUSE = "warehouse"
OLD, NEW = "/shipments", "/v2/shipments"
ORDERS = 10


async def check(asked: Asked) -> Shown:
    """Whether the endpoint has moved, and what was seen."""
    before = await shipments_told(asked)
    # One after the other: commands that come together share a request, which counts once.
    placed = [await place(asked, [mixed_order(number)]) for number in range(ORDERS)]
    after = await shipments_told(asked)
    told = {path: after[path] - before[path] for path in (OLD, NEW)}
    orders = [order for outcome in placed for order in outcome.orders.values()]
    completed = [order for order in orders if order["status"] == COMPLETED]
    old = await tell(asked, WAREHOUSE, OLD, {})  # which asks for nothing
    repeated = await repeats(asked, completed[0]) if completed else False
    expected = ORDERS if asked.style == "orchestration" else 0
    proved = (
        len(completed) == ORDERS
        and old.status in (404, 405)
        and told[OLD] == 0
        # Other orders may be placed meanwhile.
        and (told[NEW] >= expected if expected else told[NEW] == 0)
        and repeated
    )
    how = "answers a repeated command with its shipment" if repeated else "does not know the command"
    return Shown(
        proved,
        f"{len(completed)} of {ORDERS} fresh {asked.style} orders were completed; meanwhile {told[NEW]} "
        f"shipments were asked for at {NEW} and {told[OLD]} at {OLD}; "
        f"now {NEW} {how}, and {OLD} answers {old.status}.",
    )


async def shipments_told(asked: Asked) -> Counter[str]:
    """By path, how often the warehouse has been asked for a shipment since it was started, and complied."""
    told: Counter[str] = Counter()
    for sample in await samples(asked, WAREHOUSE, "http_requests_total"):
        labels = sample.labels
        if labels.get("method") == "POST" and labels.get("status") in ("200", "201"):
            told[labels["route"]] += int(sample.value)
    return told


async def repeats(asked: Asked, order: Mapping[str, Any]) -> bool:
    """Whether an order's command at the new path brings the shipment that the order has."""
    command = command_for(WAREHOUSE, order)
    if command.path != NEW:
        return False
    answer = await tell(asked, WAREHOUSE, NEW, command.body)
    shipment_id = order["steps"][WAREHOUSE]["result"]["shipment_id"]
    return answer.status == 200 and answer.body.get("shipment_id") == shipment_id


if __name__ == "__main__":
    prove(check)
