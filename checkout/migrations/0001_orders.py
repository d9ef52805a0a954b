"""Orders, with their progress."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the table and its indexes."""
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("style", sa.Text, nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("accepted_at", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("steps", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("resume_after", sa.Float(53), nullable=False),
        sa.Column("leased", sa.Boolean, nullable=False),
        sa.Column("passes", sa.Integer, nullable=False),
    )
    op.create_index("orders_by_key", "orders", ["caller", "idempotency_key"], unique=True)
    op.create_index("orders_by_status", "orders", ["status", "order_id"])
    unfinished = sa.text("status = 'in_progress'")
    op.create_index(
        "orders_due",
        "orders",
        ["resume_after"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
