"""Shows on the running system that a fourth service invoices every order of one style.

It refuses to take the service's word alone: checkout's answer must show the step, too.
"""

import asyncio

from lab.change.proving import Asked, NotProvedError, Shown, fetch_all, place, prove
from lab.client import Patience
from lab.reading import POLL_S, get_checkout
from lab.samples import mixed_order

SERVICE = "invoice"
ORDERS = 10
PATIENCE = Patience(15.0, try_s=5.0)
FINAL_WITHIN_S = 30.0


async def check(asked: Asked) -> Shown:
    """What was seen; raises NotProvedError or LabError where it is not as it should be."""
    await read_numbers(asked)  # before any order is placed: is there such a service at all?
    outcome = await place(asked, [mixed_order(number) for number in range(ORDERS)], FINAL_WITHIN_S)
    if not outcome.all_accepted or outcome.unfinished:
        raise NotProvedError(
            f"Of {ORDERS} orders {outcome.accepted} were accepted, and {len(outcome.unfinished)} did not "
            f"come to an end within {FINAL_WITHIN_S:.0f} s."
        )
    told = {order_id: await number_told(asked, order_id) for order_id in outcome.orders}
    numbers = await read_numbers(asked)
    for order_id, number in told.items():
        if numbers.get(order_id) != number:
            raise NotProvedError(
                f"Of order {order_id} checkout tells invoice {number}, the service {numbers.get(order_id)}."
            )
    return Shown(
        True,
        f"Each of {len(told)} new orders by {asked.style} has exactly one invoice and shows the step "
        f"{SERVICE} as succeeded, and the numbers of all {len(numbers)} invoices are 1 to {len(numbers)} "
        "without gaps.",
    )


async def read_numbers(asked: Asked) -> dict[str, int]:
    """By order id, the number of its invoice; raise NotProvedError unless they are 1, 2, 3 and so on."""
    effects = await fetch_all(asked, SERVICE, "/effects", "effects")
    numbers = {str(told["order_id"]): int(told["number"]) for told in effects}
    if len(numbers) < len(effects):
        raise NotProvedError(f"{len(effects)} invoices belong to {len(numbers)} orders.")
    if sorted(numbers.values()) != list(range(1, len(effects) + 1)):
        raise NotProvedError(f"The numbers of {len(effects)} invoices are not 1 to {len(effects)}.")
    return numbers


async def number_told(asked: Asked, order_id: str) -> int:
    """The invoice's number by checkout's own answer; raise NotProvedError if it does not come.

    A participant that checkout did not know yet when it accepted the order is awaited here, not there.
    """
    status = "not there"
    for _ in range(int(FINAL_WITHIN_S / POLL_S)):
        order = await get_checkout(asked.client, asked.system, order_id, PATIENCE)
        step = order["steps"].get(SERVICE) if order else None
        status = step["status"] if step else "not there"
        if step and status == "succeeded":
            return int(step["result"]["number"])
        if status in ("failed", "skipped") or (order and order["style"] == "orchestration"):
            break  # all of its steps were final already, and there will be no other
        await asyncio.sleep(POLL_S)
    raise NotProvedError(f"The step {SERVICE} of order {order_id} is {status}.")


if __name__ == "__main__":
    prove(check)
