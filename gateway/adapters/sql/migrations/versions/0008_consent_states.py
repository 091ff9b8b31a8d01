"""States of consents, their receipts and their renewal; what a picture is kept for.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INDEXES = (
    ["tenant", "receipt_id"],
    ["tenant", "renew_at"],
    ["tenant", "notice_id", "notice_language", "consent_id"],
)


def upgrade() -> None:
    """Add the columns; what the state of a consent is follows from what is written of it."""
    names = ("state", "event_id", "receipt_id")
    for name in names:
        op.add_column("consent", sa.Column(name, TEXT, nullable=True))
    op.add_column("consent", sa.Column("renew_at", sa.BigInteger(), nullable=True))
    op.add_column("notice", sa.Column("is_spread", sa.Boolean(), nullable=True))
    op.add_column("stored_object", sa.Column("kept_for", TEXT, nullable=True))
    op.execute("UPDATE stored_object SET kept_for = ''")
    op.execute("UPDATE consent SET state = 'given', event_id = '', receipt_id = ''")
    op.execute("UPDATE consent SET state = 'superseded' WHERE superseded_by <> ''")
    op.execute("UPDATE consent SET state = 'withdrawn' WHERE withdrawn_at IS NOT NULL")
    op.execute(sa.update(sa.table("notice", sa.column("is_spread"))).values(is_spread=sa.true()))
    with op.batch_alter_table("consent") as consent:
        for name in names:
            consent.alter_column(name, existing_type=TEXT, nullable=False)
    with op.batch_alter_table("stored_object") as stored:
        stored.alter_column("kept_for", existing_type=TEXT, nullable=False)
    with op.batch_alter_table("notice") as notice:
        notice.alter_column("is_spread", existing_type=sa.Boolean(), nullable=False)
    for columns in INDEXES:
        op.create_index(f"ix_consent_{'_'.join(columns)}", "consent", columns)
