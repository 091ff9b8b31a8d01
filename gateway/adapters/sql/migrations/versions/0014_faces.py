"""Training sets: what is done about faces, what could not be made so, and what was measured.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns; sets that are there show faces as they are."""
    with op.batch_alter_table("dataset") as table:
        for name, value in (("profile", "metadata_free"), ("refused", "{}")):
            table.add_column(sa.Column(name, TEXT, nullable=False, server_default=sa.text(f"'{value}'")))
            table.alter_column(name, existing_type=TEXT, server_default=None)
    with op.batch_alter_table("dataset_item") as table:
        table.add_column(sa.Column("similarity", sa.BigInteger(), nullable=True))
