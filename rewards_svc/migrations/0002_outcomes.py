"""What the service has told of each event that it heard, and what it has refused so far."""

from alembic import op

from servicekit.outcomes import create_tables

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create both tables."""
    create_tables(op)
