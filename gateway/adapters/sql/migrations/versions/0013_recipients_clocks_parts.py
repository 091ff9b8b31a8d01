"""Recipients, as facts of the controller and in each request; a request's pauses and refused parts.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the columns; of what is there all are empty."""
    for table, names in {
        "tenant_version": ("recipients",),
        "dsr": ("recipients", "clock", "refused_parts"),
    }.items():
        with op.batch_alter_table(table) as changed:
            for name in names:
                changed.add_column(sa.Column(name, TEXT, nullable=False, server_default="{}"))
                changed.alter_column(name, existing_type=TEXT, server_default=None)
    op.add_column("dsr", sa.Column("owed_key", TEXT, nullable=True))
    op.create_index("ix_dsr_tenant_owed_key", "dsr", ["tenant", "owed_key"])
