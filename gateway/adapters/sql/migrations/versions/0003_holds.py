"""Legal holds.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "hold",
        sa.Column("hold_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=False),
        sa.Column("rule", TEXT, nullable=False),
        sa.Column("classes", TEXT, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name="pk_hold"),
    )
    op.create_index("ix_hold_tenant_handle", "hold", ["tenant", "handle"])
    op.create_index("ix_hold_until", "hold", ["until"])
