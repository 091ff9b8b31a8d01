"""Timestamps of checkpoints.

Revision ID: 0004
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("checkpoint", sa.Column("timestamp", sa.LargeBinary(), nullable=True))
