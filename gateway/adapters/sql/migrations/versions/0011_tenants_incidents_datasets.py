"""Facts of controllers, the register of incidents, and training sets.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tenant_version",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("contact", TEXT, nullable=False),
        sa.Column("establishments", TEXT, nullable=True),
        sa.Column("targets", TEXT, nullable=True),
        sa.Column("time_zone", TEXT, nullable=False),
        sa.Column("calendar", TEXT, nullable=True),
        sa.Column("thresholds", TEXT, nullable=False),
        sa.Column("is_training_on", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "version", name="pk_tenant_version"),
    )
    op.create_table(
        "incident",
        sa.Column("incident_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("data_categories", TEXT, nullable=False),
        sa.Column("residences", TEXT, nullable=False),
        sa.Column("about_subjects", sa.BigInteger(), nullable=False),
        sa.Column("about_records", sa.BigInteger(), nullable=False),
        sa.Column("aware_at", sa.BigInteger(), nullable=False),
        sa.Column("authority", TEXT, nullable=False),
        sa.Column("subjects", TEXT, nullable=False),
        sa.Column("regimes", TEXT, nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("sealed_text", sa.LargeBinary(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("keep_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("incident_id", name="pk_incident"),
    )
    op.create_index(
        "ix_incident_tenant_aware_at_incident_id", "incident", ["tenant", "aware_at", "incident_id"]
    )
    op.create_index("ix_incident_due_at", "incident", ["due_at"])
    op.create_index("ix_incident_keep_until", "incident", ["keep_until"])
    op.create_table(
        "dataset",
        sa.Column("dataset_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("label", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("max_size", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("skipped", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("cursor", TEXT, nullable=False),
        sa.Column("lease_owner", TEXT, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", name="pk_dataset"),
    )
    op.create_index("ix_dataset_tenant_label_version", "dataset", ["tenant", "label", "version"])
    op.create_index("ix_dataset_state_created_at", "dataset", ["state", "created_at"])
    op.create_index("ix_dataset_expires_at", "dataset", ["expires_at"])
    op.create_table(
        "dataset_item",
        sa.Column("item_id", TEXT, nullable=False),
        sa.Column("dataset_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("source_object", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("consent_id", TEXT, nullable=False),
        sa.Column("image_type", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("added_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("item_id", name="pk_dataset_item"),
    )
    op.create_index("ix_dataset_item_tenant_handle", "dataset_item", ["tenant", "handle"])
    op.create_index(
        "ix_dataset_item_dataset_id_state_item_id", "dataset_item", ["dataset_id", "state", "item_id"]
    )
    op.create_index("ix_dataset_item_object_id", "dataset_item", ["object_id"])
