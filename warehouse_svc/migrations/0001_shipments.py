"""Stock, shipments, and what backordered shipments wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "stock",
        sa.Column("sku", sa.Text, primary_key=True),
        sa.Column("on_hand", sa.BigInteger, nullable=False),
        sa.Column("allocated", sa.BigInteger, nullable=False),
        sa.CheckConstraint("on_hand BETWEEN 0 AND 1000000000", name="stock_on_hand_in_range"),
        sa.CheckConstraint("allocated BETWEEN 0 AND on_hand", name="stock_never_oversold"),
    )
    op.create_table(
        "shipments",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            sa.Identity(),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("order_id", sa.Text, nullable=False, unique=True),
        sa.Column("shipment_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("lines", sa.JSON, nullable=False),
        sa.Column("ship_to", sa.JSON, nullable=False),
        sa.Column("prepared_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_index("shipments_by_state", "shipments", ["state"])
    op.create_table(
        "backorders",
        sa.Column("sku", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
    )
    op.create_index("backorders_by_shipment", "backorders", ["seq"])
