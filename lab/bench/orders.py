"""The orders that the load generators submit: valid, varied, and the same for every arm and style.

They are made from a seed before the clock starts, four in five of them for members of the rewards programme.
The conductor bench sends them without an Idempotency-Key, for which its baselines have no use; the styles
bench gives each its own, as a careful client does.
"""

import random
import uuid
from dataclasses import dataclass

import orjson

from lab.bench.wire import Reply, encode_request

MEMBER_SHARE = 0.8
POOL_SIZE = 500
ACCEPTED = (201, 202)

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


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkout service takes orders: host, port, what comes before `/checkouts`, a token."""

    host: str
    port: int
    path: str = ""
    token: str | None = None


def encode_order(origin: Origin, style: str, body: bytes, prefer: str) -> bytes:
    """One order's request, with an Idempotency-Key of its own; an empty style leaves it to the service."""
    headers = {"Idempotency-Key": f'"{uuid.uuid4()}"', "Prefer": prefer}
    path = f"{origin.path}/checkouts" + (f"?style={style}" if style else "")
    return encode_request(
        "POST", path, origin.port, body, token=origin.token, headers=headers, host=origin.host
    )


def read_accepted(reply: Reply, style: str) -> tuple[str | None, str | None]:
    """The id of the order that a reply accepts; or None, and the slug of what is wrong with it.

    An empty `style` accepts any.
    """
    if reply.status not in ACCEPTED:
        return None, f"status-{reply.status}"
    try:
        checkout = orjson.loads(reply.body)
        order_id, told = checkout["order_id"], checkout["style"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None, "not-a-checkout"
    return (order_id, None) if style in ("", told) else (None, "other-style")
