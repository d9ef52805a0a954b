"""Where an order's event is, how often a retry was asked for, what is due by style, and who takes part."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table; orders that are there were never emitted."""
    op.add_column("orders", sa.Column("event_stamp", sa.Text))
    op.add_column("orders", sa.Column("event_sequence", sa.BigInteger))
    op.add_column("orders", sa.Column("emitted_at", sa.BigInteger))
    op.add_column("orders", sa.Column("retries", sa.Integer, nullable=False, server_default="0"))
    op.drop_index("orders_due", "orders")
    unfinished = sa.text("status = 'in_progress'")
    op.create_index(
        "orders_due",
        "orders",
        ["style", "resume_after"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        "participants",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("joined_at", sa.BigInteger, nullable=False),
        sa.Column("durable_created", sa.Text, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
    )
