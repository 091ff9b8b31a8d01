"""First tables.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text that sorts by code point, whatever the locale of the database."""


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "subject",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("sealed_profile", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "handle", name="pk_subject"),
    )
    op.create_table(
        "subject_key",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("cls", TEXT, nullable=False),
        sa.Column("month", TEXT, nullable=False),
        sa.Column("epoch", TEXT, nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_subject_key"),
    )
    op.create_index("ix_subject_key_epoch", "subject_key", ["epoch"])
    op.create_index("ix_subject_key_tenant_handle", "subject_key", ["tenant", "handle"])
    op.create_table(
        "closed_epoch",
        sa.Column("epoch", TEXT, nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("epoch", name="pk_closed_epoch"),
    )
    op.create_table(
        "pack_text",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("pack_id", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_pack_text"),
    )
    op.create_table(
        "notice",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("notice_id", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("language", TEXT, nullable=False),
        sa.Column("thing_id", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("body", TEXT, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("purposes", TEXT, nullable=False),
        sa.Column("shown", TEXT, nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "notice_id", "version", "language", name="pk_notice"),
    )
    op.create_table(
        "consent",
        sa.Column("consent_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("form", TEXT, nullable=False),
        sa.Column("flags", TEXT, nullable=False),
        sa.Column("given_by", TEXT, nullable=False),
        sa.Column("via", TEXT, nullable=False),
        sa.Column("term_shown", TEXT, nullable=False),
        sa.Column("notice_id", TEXT, nullable=False),
        sa.Column("notice_version", sa.BigInteger(), nullable=False),
        sa.Column("notice_language", TEXT, nullable=False),
        sa.Column("notice_sha256", TEXT, nullable=False),
        sa.Column("given_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn_at", sa.BigInteger(), nullable=True),
        sa.Column("withdrawn_via", TEXT, nullable=False),
        sa.Column("superseded_by", TEXT, nullable=False),
        sa.Column("regimes", TEXT, nullable=False),
        sa.Column("sealed_evidence", sa.LargeBinary(), nullable=False),
        sa.Column("keep_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("consent_id", name="pk_consent"),
    )
    op.create_index("ix_consent_keep_until", "consent", ["keep_until"])
    op.create_index("ix_consent_key_id", "consent", ["key_id"])
    op.create_index("ix_consent_tenant_handle_purpose", "consent", ["tenant", "handle", "purpose"])
    op.create_table(
        "signal",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=False),
        sa.Column("gpc", sa.Boolean(), nullable=False),
        sa.Column("limit_spi", sa.Boolean(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "handle", name="pk_signal"),
    )
    op.create_table(
        "stored_object",
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=False),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("image_type", TEXT, nullable=False),
        sa.Column("width", sa.BigInteger(), nullable=False),
        sa.Column("height", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("wrapped_dek", sa.LargeBinary(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("object_id", name="pk_stored_object"),
    )
    op.create_index("ix_stored_object_state_expires_at", "stored_object", ["state", "expires_at"])
    op.create_index("ix_stored_object_tenant_handle", "stored_object", ["tenant", "handle"])
    op.create_index("ix_stored_object_tenant_job_id", "stored_object", ["tenant", "job_id"])
    op.create_table(
        "job",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=False),
        sa.Column("purpose", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("style", TEXT, nullable=False),
        sa.Column("backend", TEXT, nullable=False),
        sa.Column("backend_job", TEXT, nullable=False),
        sa.Column("input_object", TEXT, nullable=False),
        sa.Column("result_object", TEXT, nullable=False),
        sa.Column("percent", sa.BigInteger(), nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("is_cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", TEXT, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("is_forget_owed", sa.Boolean(), nullable=False),
        sa.Column("is_uploader", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_job"),
    )
    op.create_index("ix_job_expires_at", "job", ["expires_at"])
    op.create_index("ix_job_is_forget_owed_updated_at", "job", ["is_forget_owed", "updated_at"])
    op.create_index("ix_job_state_created_at_job_id", "job", ["state", "created_at", "job_id"])
    op.create_index("ix_job_state_lease_until", "job", ["state", "lease_until"])
    op.create_index("ix_job_tenant_created_at_job_id", "job", ["tenant", "created_at", "job_id"])
    op.create_index("ix_job_tenant_handle", "job", ["tenant", "handle"])
    op.create_table(
        "dsr",
        sa.Column("dsr_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("regime", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("opened_by", TEXT, nullable=False),
        sa.Column("approved_by", TEXT, nullable=False),
        sa.Column("reason_code", TEXT, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("due_on", TEXT, nullable=False),
        sa.Column("extended_due_on", TEXT, nullable=False),
        sa.Column("internal_target_on", TEXT, nullable=False),
        sa.Column("counts", TEXT, nullable=False),
        sa.Column("certificate_id", TEXT, nullable=False),
        sa.Column("lease_owner", TEXT, nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("keep_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("dsr_id", name="pk_dsr"),
    )
    op.create_index("ix_dsr_keep_until", "dsr", ["keep_until"])
    op.create_index("ix_dsr_state_lease_until", "dsr", ["state", "lease_until"])
    op.create_index("ix_dsr_tenant_handle", "dsr", ["tenant", "handle"])
    op.create_table(
        "certificate",
        sa.Column("certificate_id", TEXT, nullable=False),
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("dsr_id", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("opening", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("keep_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("certificate_id", name="pk_certificate"),
    )
    op.create_index("ix_certificate_keep_until", "certificate", ["keep_until"])
    op.create_index("ix_certificate_tenant_dsr_id", "certificate", ["tenant", "dsr_id"])
    op.create_table(
        "remembered",
        sa.Column("tenant", TEXT, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("request_id", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("resource", TEXT, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "method", "request_id", name="pk_remembered"),
    )
    op.create_index("ix_remembered_expires_at", "remembered", ["expires_at"])
    op.create_table(
        "leaf",
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("log", TEXT, nullable=False),
        sa.Column("ty", TEXT, nullable=False),
        sa.Column("line", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("queued_at", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("event_id", name="pk_leaf"),
        sa.UniqueConstraint("log", "seq", name="uq_leaf_log_seq"),
    )
    op.create_index(
        "ix_leaf_waiting",
        "leaf",
        ["log", "queued_at", "event_id"],
        sqlite_where=sa.text("seq IS NULL"),
        postgresql_where=sa.text("seq IS NULL"),
    )
    op.create_table(
        "node",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "index", name="pk_node"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("peaks", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_checkpoint"),
    )


def downgrade() -> None:
    """Refuse: before the first tables there is nothing, and the records would be lost."""
    raise NotImplementedError("the first tables are not undone; drop the database instead")
