"""Packages as sealed objects of a request, and holds that a request places.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


NEW = (("stored_object", "dsr_id"), ("stored_object", "sha256"), ("hold", "dsr_id"))


def upgrade() -> None:
    """Add the columns; what is there already is of no request."""
    for table, column in NEW:
        op.add_column(table, sa.Column(column, TEXT, nullable=True))
        op.execute(sa.update(sa.table(table, sa.column(column, TEXT))).values({column: ""}))
        with op.batch_alter_table(table) as rows:
            rows.alter_column(column, existing_type=TEXT, nullable=False)
    op.create_index("ix_stored_object_tenant_dsr_id", "stored_object", ["tenant", "dsr_id"])
