"""Marked orders: each part of them is a text, or a number, that occurs nowhere else, and so can be found.

A fact is found in bytes by its text, and an amount also as people read it (`213456.78`). Whether somebody is
a member is no text of its own: it is found as JSON's `"rewards_member": true`. What is compressed, encrypted,
in base64 or hashed is not seen: it refuses to conclude from what it does not find.
"""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAME, EMAIL, MEMBERSHIP, ADDRESS = "customer name", "e-mail address", "membership", "postal address"
ARTICLES, PRICES, TOTAL = "articles bought", "unit prices", "order total"
FACTS = (NAME, EMAIL, MEMBERSHIP, ADDRESS, ARTICLES, PRICES, TOTAL)

QUANTITY = 3
# Eight digits, three times as much eight too: found neither in a time nor in an id but by a rare chance.
LEAST_PRICE, MOST_PRICE = 20_000_000, 33_000_000
MEMBER_TOLD = re.compile(rb'\\?"rewards_member\\?"\s*:\s*(true|false|0|1)')
SOFT_BREAK = re.compile(rb"=\r?\n")  # of quoted-printable, in the middle of a word if it must be


@dataclass(frozen=True)
class Marked:
    """One order: the body of `POST /checkouts`, and by fact the texts by which it is found."""

    body: Mapping[str, Any]
    texts: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, int]

    @property
    def is_member(self) -> bool:
        """Whether the customer has joined rewards."""
        return bool(self.body["customer"]["rewards_member"])

    def facts_in(self, content: bytes) -> Iterator[str]:
        """The facts of this order that are in these bytes; membership only with another fact of it."""
        whole = SOFT_BREAK.sub(b"", content)
        found = [fact for fact, texts in self.texts.items() if any(text.encode() in whole for text in texts)]
        yield from found
        if found and MEMBER_TOLD.search(whole):
            yield MEMBERSHIP

    def paths_in(self, document: Any) -> dict[str, frozenset[str]]:
        """By fact, where in a JSON document it stands: the dotted paths of leaves, through lists."""
        found: dict[str, set[str]] = {}
        for path, leaf in _leaves(document, ""):
            for fact, texts in self.texts.items():
                if any(text in str(leaf) for text in texts):
                    found.setdefault(fact, set()).add(path)
            if isinstance(leaf, bool) and MEMBER in path:
                found.setdefault(MEMBERSHIP, set()).add(path)
        return {fact: frozenset(paths) for fact, paths in found.items()}


def paths_by_fields(fields: Iterable[str]) -> dict[str, frozenset[str]]:
    """By fact, where these fields tell it, called as in an order: `ship_to` tells all that is below it."""
    told = list(fields)
    paths = [path for path in PATHS if covered(path, told)]
    return {PATHS[path]: frozenset(p for p in paths if PATHS[p] == PATHS[path]) for path in paths}


def covered(path: str, fields: Iterable[str]) -> bool:
    """Whether one of these fields is at a dotted path, or above it; `a|b` is a field of two names."""
    names = [name for field in fields for name in field.split("|")]
    return any(path == name or path.startswith(f"{name}.") for name in names)


# Whether somebody is a member is told by whatever flag has this in its name.
MEMBER = "member"
# The address's own name is the customer's where the order gives none, as these do.
PATHS = {
    "customer.name": NAME,
    "customer.email": EMAIL,
    "customer.rewards_member": MEMBERSHIP,
    "lines.sku": ARTICLES,
    "lines.unit_price_minor": PRICES,
    "total_minor": TOTAL,
    "ship_to.line1": ADDRESS,
    "ship_to.name": NAME,
}


def marked_order(*, rewards_member: bool) -> Marked:
    """An order of one article, unlike any other order."""
    mark = secrets.token_hex(5)
    price = LEAST_PRICE + secrets.randbelow(MOST_PRICE - LEAST_PRICE)
    email = f"em{mark}@example.com"
    numbers = {PRICES: price, TOTAL: price * QUANTITY}
    body = {
        "customer": {"name": f"Nm{mark}", "email": email, "rewards_member": rewards_member},
        "currency": "GBP",
        "lines": [{"sku": f"Sku{mark}", "quantity": QUANTITY, "unit_price_minor": price}],
        "ship_to": {"line1": f"St{mark}", "city": f"Ct{mark}", "postcode": f"P{mark}", "country": "GB"},
    }
    texts = {
        NAME: (f"Nm{mark}",),
        EMAIL: (email,),
        ADDRESS: (f"St{mark}", f"Ct{mark}", f"P{mark}"),
        ARTICLES: (f"Sku{mark}",),
        **{fact: (str(n), f"{n // 100}.{n % 100:02}") for fact, n in numbers.items()},
    }
    return Marked(body, texts, numbers)


def _leaves(document: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(document, list):
        for value in document:
            yield from _leaves(value, path)
    else:
        yield path, document
