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


def upgrade() -> None:
    """Add the columns; what is there already is of no request."""
    for table, column in (("stored_object", "dsr_id"), ("stored_object", "sha256"), ("hold", "dsr_id")):
        op.add_column(table, sa.Column(column, TEXT, nullable=False, server_default=""))
    op.create_index("ix_stored_object_tenant_dsr_id", "stored_object", ["tenant", "dsr_id"])
