"""The orders that the load generator submits: valid, varied, and the same for every arm.

They are made from a seed before the clock starts, four in five of them for members of the rewards programme.
They carry no Idempotency-Key: the baselines have no use for one, and every arm gets the same bytes.
"""

import random
from dataclasses import dataclass

import orjson

MEMBER_SHARE = 0.8
POOL_SIZE = 500

STREETS = ("12 St James Sq", "221b Baker St", "1 Canada Sq", "4 Privet Drive", "10 Downing St")
PEOPLE = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Tony Hoare")


@dataclass(frozen=True, slots=True)
class PreparedOrder:
    body: bytes
    member: bool


def prepare_orders(seed: int, count: int = POOL_SIZE) -> list[PreparedOrder]:
    """`count` order bodies as JSON; the same seed gives the same bytes."""
    chance = random.Random(seed)  # noqa: S311 - varied orders, not secrets
    members = [number < round(count * MEMBER_SHARE) for number in range(count)]
    chance.shuffle(members)
    return [_prepare(chance, number, member) for number, member in enumerate(members)]


def _prepare(chance: random.Random, number: int, member: bool) -> PreparedOrder:
    name = chance.choice(PEOPLE)
    lines = [
        {
            "sku": f"BOOK-{chance.randrange(1, 200)}",
            "quantity": chance.randrange(1, 4),
            "unit_price_minor": chance.randrange(100, 5000),
        }
        for _ in range(chance.randrange(1, 5))
    ]
    order = {
        "customer": {"name": name, "email": f"reader{number}@example.com", "rewards_member": member},
        "currency": "GBP",
        "lines": lines,
        "ship_to": {
            "name": name,
            "line1": chance.choice(STREETS),
            "line2": None,
            "city": "London",
            "region": None,
            "postcode": "SW1Y 4JH",
            "country": "GB",
        },
    }
    return PreparedOrder(orjson.dumps(order), member)
