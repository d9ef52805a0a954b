"""Sample orders: the one of the documentation, and a mix for many, the same at every run.

Prices, SKUs and addresses are made up; all customers are at example.com, where no mail arrives.
"""

from typing import Any

CUSTOMERS = 50  # few enough that points gather on balances, and that two orders of one customer meet
PRODUCTS = (
    ("BOOK-1", 1999),
    ("PEN-7", 350),
    ("LAMP-3", 4500),
    ("MUG-2", 1250),
    ("CABLE-9", 799),
    ("CHAIR-4", 12900),
    ("NOTE-5", 0),
)
CURRENCIES = ("GBP", "EUR", "USD", "JPY")
NAMES = ("Ada Lovelace", "Grace Hopper", "Zoë Müller", "Łukasz Nowak", "Mary O'Neill", "田中 花子")
ADDRESSES = (
    {
        "line1": "12 St James Sq",
        "line2": None,
        "city": "London",
        "region": None,
        "postcode": "SW1Y 4JH",
        "country": "GB",
    },
    {"line1": "Rosenweg 4", "city": "Köln", "postcode": "50667", "country": "DE"},
    {
        "line1": "1 Main St",
        "line2": "Apt 5",
        "city": "Springfield",
        "region": "IL",
        "postcode": "62701",
        "country": "US",
    },
    {"line1": "Naas Road", "city": "Dublin", "region": "Leinster", "country": "IE"},
)


def sample_order(*, rewards_member: bool = True) -> dict[str, Any]:
    """The order of the documentation, as the body of `POST /checkouts`."""
    return {
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "rewards_member": rewards_member},
        "currency": "GBP",
        "lines": [
            {"sku": "BOOK-1", "quantity": 2, "unit_price_minor": 1999},
            {"sku": "PEN-7", "quantity": 1, "unit_price_minor": 350},
        ],
        "ship_to": {"name": "Ada Lovelace", **ADDRESSES[0]},
    }


def mixed_order(number: int, *, rewards_member: bool | None = None) -> dict[str, Any]:
    """One of many: `number` decides customer, products, currency and, unless told, membership (3 in 5)."""
    customer = number * 7 % CUSTOMERS
    member = number % 5 < 3 if rewards_member is None else rewards_member
    lines = []
    for position in range(1 + number % 3):
        sku, price = PRODUCTS[(number + position * 2) % len(PRODUCTS)]
        lines.append({"sku": sku, "quantity": 1 + (number + position) % 4, "unit_price_minor": price})
    return {
        "customer": {
            "name": NAMES[customer % len(NAMES)],
            "email": f"customer-{customer}@example.com",
            "rewards_member": member,
        },
        "currency": CURRENCIES[customer % len(CURRENCIES)],
        "lines": lines,
        "ship_to": dict(ADDRESSES[customer % len(ADDRESSES)]),
    }
