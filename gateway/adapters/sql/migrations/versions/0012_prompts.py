"""Prompts: each sealed in the row of the picture it came with.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there has none."""
    with op.batch_alter_table("stored_object") as table:
        table.add_column(
            sa.Column("sealed_prompt", sa.LargeBinary(), nullable=False, server_default=sa.text("''"))
        )
        table.alter_column("sealed_prompt", existing_type=sa.LargeBinary(), server_default=None)
