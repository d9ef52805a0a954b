"""Orders and their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables and their indexes."""
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
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("completed_at", sa.BigInteger),
        sa.Column("resume_after", sa.Float(53), nullable=False),
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
    op.create_table(
        "steps",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("last_error", sa.Text),
        sa.Column("since", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
    )
