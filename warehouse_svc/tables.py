"""The warehouse's tables. `migrations/` makes them; this module only names them for queries."""

from sqlalchemy import JSON, BigInteger, Column, Integer, MetaData, Table, Text

from servicekit.db import Instant

metadata = MetaData()

stock = Table(
    "stock",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("on_hand", BigInteger, nullable=False),
    Column("allocated", BigInteger, nullable=False),
)

# `lines` and `ship_to` never change: the first body for an order wins.
shipments = Table(
    "shipments",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("order_id", Text, nullable=False, unique=True),
    Column("shipment_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("lines", JSON, nullable=False),
    Column("ship_to", JSON, nullable=False),
    Column("prepared_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
)

# What backordered shipments wait for, by SKU: rows are here exactly while the shipment is backordered.
backorders = Table(
    "backorders",
    metadata,
    Column("sku", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity", BigInteger, nullable=False),
)
