"""The generations."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, flag, instant, whole, words


class JobRow(Table, table=True):
    """Table of `Job`."""

    __tablename__ = "job"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "state", "lease_until"),
        Index(None, "state", "created_at", "job_id"),
        Index(None, "tenant", "created_at", "job_id"),
        Index(None, "expires_at"),
        Index(None, "is_forget_owed", "updated_at"),
    )

    job_id: str = words(key=True)
    tenant: str = words()
    handle: str = words()
    purpose: str = words()
    state: str = words()
    style: str = words()
    backend: str = words()
    backend_job: str = words()
    input_object: str = words()
    result_object: str = words()
    percent: int = whole()
    stage: str = words()
    reason: str = words()
    detail: str = words()
    is_cancel_requested: bool = flag()
    attempt: int = whole()
    lease_owner: str = words()
    lease_until: datetime | None = instant()
    created_at: datetime = instant()
    updated_at: datetime = instant()
    expires_at: datetime = instant()
    is_forget_owed: bool = flag()
    is_uploader: bool = flag()
