"""What happens in one run: which orders are placed, how, and which faults befall whom between them.

A seed decides everything, and nothing depends on the style: both styles get the same script. Refuses to act:
it only says what is to be done.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.samples import ADDRESSES, PRODUCTS
from lab.system import BROKER, CONDUCTOR
from tests.support.faults import PARTICIPANTS

ORDERS = 10
REFUSED = 3  # the number of the order of which one line is refused
BACKORDERED = 6  # and of the one that has to wait for stock
WAITING = ("wait=10", "respond-async, wait=10")
IMPATIENT = (
    "respond-async",
    "wait=0",
    "respond-async, wait=0",
)  # while a fault lasts, an answer waits for it


@dataclass(frozen=True)
class Placement:
    """One order, and how often it is sent with the same key."""

    body: Mapping[str, Any]
    prefer: str
    times: int

    @property
    def waits(self) -> bool:
        """Whether the answer comes when the order is final."""
        return self.prefer in WAITING


@dataclass(frozen=True)
class Script:
    """`faults` are `(verb, process)` pairs, to be done before the order of that number is placed."""

    placements: Sequence[Placement]
    faults: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def write_script(seed: int) -> Script:
    """The script of a seed; seed 0 is a calm day."""
    chance = random.Random(seed)
    preferences = IMPATIENT if seed else ("respond-async", *WAITING)
    placements = [
        Placement(_body(chance, number), chance.choice(preferences), chance.choice((1, 1, 2)))
        for number in range(ORDERS)
    ]
    return Script(placements, _faults(chance) if seed else {})


def _body(chance: random.Random, number: int) -> Mapping[str, Any]:
    lines = [
        {"sku": sku, "quantity": chance.randint(1, 5), "unit_price_minor": price}
        for sku, price in chance.sample(PRODUCTS, chance.randint(1, 3))
    ]
    special = {REFUSED: "REFUSE-ME", BACKORDERED: "BACKORDER-ME"}.get(number)
    if special is not None:
        lines.append({"sku": special, "quantity": 1, "unit_price_minor": 100})
    customer = chance.randint(1, 4)
    return {
        "customer": {
            "name": f"Customer {customer}",
            "email": f"customer-{customer}@example.com",
            "rewards_member": chance.random() < 0.6,
        },
        "currency": "GBP",
        "lines": lines,
        "ship_to": dict(chance.choice(ADDRESSES)),
    }


def _faults(chance: random.Random) -> dict[int, tuple[str, str]]:
    """One service is killed, one stopped for a while, one frozen for a while; the broker dies, and forgets.

    It does so while the stopped and the frozen one have yet to hear of some orders.
    """
    killed, stopped, frozen = chance.sample(PARTICIPANTS, 3)
    broker = ["kill", "wipe"]
    chance.shuffle(broker)
    return {
        1: ("stop", stopped),
        2: ("kill", killed),
        3: (broker[0], BROKER),
        4: ("start", stopped),
        5: ("pause", frozen),
        7: ("kill", CONDUCTOR),
        8: (broker[1], BROKER),
        9: ("resume", frozen),
    }
