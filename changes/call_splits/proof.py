"""Proves that rewards looks members up, then credits: fresh orders are credited once, the old shape refused.

The command in the old shape is sent for an order that has its entry already, so that it changes nothing where
it is still taken. How often members were looked up over REST is read from the rewards service's own metrics.
"""

import uuid
from collections import Counter
from typing import Any

from lab.change.proving import Asked, NotProvedError, Shown, fetch_all, place, prove, samples, tell
from lab.samples import sample_order

ORDERS = 10
CUSTOMERS = 5  # half of the orders are of somebody who is being made a member at the same time
REFUSAL = "/problems/rewards/validation-error"


async def check(asked: Asked) -> Shown:
    """What was seen. Raises NotProvedError, or LabError where something cannot be read."""
    run = uuid.uuid4().hex[:12]

    def body(number: int) -> dict[str, Any]:
        order = sample_order(rewards_member=True)
        order["customer"]["email"] = f"split-{run}-{number % CUSTOMERS}@example.com"
        return order

    before = await lookups(asked)
    outcome = await place(asked, [body(number) for number in range(ORDERS)])
    if outcome.finished["completed"] != ORDERS:
        raise NotProvedError(f"of {ORDERS} orders {outcome.finished['completed']} were completed.")
    orders = list(outcome.orders.values())
    effects = Counter(told["order_id"] for told in await fetch_all(asked, "rewards", "/effects", "effects"))
    wrong = [order["order_id"] for order in orders if effects[order["order_id"]] != 1]
    if wrong:
        raise NotProvedError(f"{len(wrong)} of {ORDERS} orders were not credited exactly once: {wrong}.")
    members = {order["steps"]["rewards"]["result"]["balance_id"] for order in orders}
    if len(members) != CUSTOMERS:
        raise NotProvedError(f"{CUSTOMERS} customers have {len(members)} balances.")
    looked_up = await lookups(asked) - before
    if asked.style == "orchestration" and looked_up < ORDERS:
        raise NotProvedError(f"for {ORDERS} orders the conductor looked up {looked_up} members.")
    answer = await tell(asked, "rewards", "/balances", old_shape(orders[0]))
    if answer.status != 422 or not str(answer.body.get("type", "")).endswith(REFUSAL):
        raise NotProvedError(f"rewards still takes the old shape: it answered {answer.status}.")
    return Shown(
        True,
        f"{ORDERS} fresh orders of {CUSTOMERS} new members were credited exactly once, after {looked_up} "
        "lookups over REST, and POST /balances with the customer in place of member_id is answered "
        f"{answer.status}.",
    )


async def lookups(asked: Asked) -> int:
    """How many members rewards has looked up over REST, alone or with others. Raises LabError."""
    sizes = await samples(asked, "rewards", "batch_size_sum")
    return int(sum(each.value for each in sizes if each.labels["batcher"] == "lookups"))


def old_shape(order: dict[str, Any]) -> dict[str, Any]:
    """An order's command as it was before."""
    return {
        "order_id": order["order_id"],
        "customer": {"name": order["customer"]["name"], "email": order["customer"]["email"]},
        "currency": order["currency"],
        "total_minor": order["total_minor"],
    }


if __name__ == "__main__":
    prove(check)
