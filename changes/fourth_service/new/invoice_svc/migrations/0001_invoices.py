"""Invoices, the counter of their numbers, what was told of each event, and what was refused so far.

The counter is one row, which every transaction that draws a number locks.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables; the last number so far is 0."""
    op.create_table(
        "invoices",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("order_id", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
    )
    counter = op.create_table(
        "counter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("last_number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counter, [{"id": 1, "last_number": 0}])
    op.create_table(
        "outcomes",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("stored_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "refusals",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("retry", sa.Integer, nullable=False),
        sa.Column("errors", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("refused_at", sa.BigInteger, nullable=False),
    )
