"""The keys of each log; the first start fills them in.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "log_keys",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("handover", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_log_keys"),
    )
