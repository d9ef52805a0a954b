"""What the warehouse refuses, and the problem types by which it says so.

The domain raises `WarehouseError`; the HTTP status follows from the slug, in the catalogue alone.
"""

from servicekit.problems import Catalogue, ProblemType, RuleError


class WarehouseError(RuleError):
    """A rule of the warehouse forbids it."""


class SkuRefusedError(WarehouseError):
    """The warehouse does not handle a SKU, so it ships nothing of that order. Not stored."""

    slug = "sku-refused"


class ShipmentNotFoundError(WarehouseError):
    """There is no shipment for that order."""

    slug = "not-found"


class ShipmentStateError(WarehouseError):
    """The shipment is not in the state that comes right before the one asked for."""

    slug = "shipment-state"


class StockAllocatedError(WarehouseError):
    """The on-hand quantity would fall below what is allocated to shipments."""

    slug = "stock-allocated"


OWN = {
    SkuRefusedError.slug: ProblemType(
        422,
        "The warehouse does not handle this SKU",
        "Take the SKU in the detail out of the order; nothing was stored, so the order id may be used again.",
    ),
    ShipmentStateError.slug: ProblemType(
        409,
        "The shipment is in another state",
        "Advance it one state at a time: preparing, packed, shipped, delivered. "
        "A backordered shipment waits for stock first.",
    ),
    StockAllocatedError.slug: ProblemType(
        409,
        "More is allocated than that",
        "Set the on-hand quantity to what is really there, allocated goods included, "
        "or ship what is allocated first.",
    ),
}


def catalogue(base_url: str) -> Catalogue:
    """The problem types as they resolve under this service's URL."""
    return Catalogue("warehouse", base_url, OWN)
