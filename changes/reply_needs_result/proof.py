"""Shows that the answer to a fresh order holds the delivery date that the warehouse has stored for it.

One order goes to the warehouse's own country and one abroad; a third one, whose goods are not in stock, must
be promised nothing.
"""

from datetime import date

from lab.change.proving import Asked, Shown, fetch, prove, submit, until_final
from lab.samples import ADDRESSES, sample_order

FIELD = "promised_delivery"
BACKORDERED_SKU = "BACKORDER-ME"  # never in stock at the warehouse of `duet up`


async def check(asked: Asked) -> Shown:
    """Whether the answers hold the warehouse's dates, and what was seen."""
    home, abroad, backordered = (sample_order() for _ in range(3))
    abroad["ship_to"] = {"name": "Ada Lovelace", **ADDRESSES[1]}
    backordered["lines"][0]["sku"] = BACKORDERED_SKU
    seen, proved = [], True
    for what, body in (("at home", home), ("abroad", abroad), ("backordered", backordered)):
        answer = await submit(asked, body, "wait=10")
        order_id = answer.body["order_id"]
        [read] = await until_final(asked, [order_id])
        stored = await fetch(asked, "warehouse", f"/shipments/{order_id}")
        dates = [document.get(FIELD, "nothing") for document in (answer.body, read, stored)]
        promised = all(map(_is_date, dates)) if what != "backordered" else dates == [None] * 3
        proved = proved and answer.status == 201 and promised and len(set(dates)) == 1
        shown = [each or "null" for each in dates]
        seen.append(f"{what} {answer.status} with {shown[0]}, the warehouse says {shown[2]}")
    return Shown(proved, f"{FIELD} in the answers: {'; '.join(seen)}.")


def _is_date(told: object) -> bool:
    try:
        return isinstance(told, str) and bool(date.fromisoformat(told))
    except ValueError:
        return False


if __name__ == "__main__":
    prove(check)
