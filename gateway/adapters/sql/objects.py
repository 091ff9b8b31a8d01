"""The sealed objects."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, instant, whole, words


class StoredObjectRow(Table, table=True):
    """Table of `StoredObject`."""

    __tablename__ = "stored_object"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "tenant", "job_id"),
        Index(None, "state", "expires_at"),
        Index(None, "tenant", "dsr_id"),
    )

    object_id: str = words(key=True)
    tenant: str = words()
    handle: str = words()
    key_id: str = words()
    job_id: str = words()
    kind: str = words()
    purpose: str = words()
    image_type: str = words()
    width: int = whole()
    height: int = whole()
    size_bytes: int = whole()
    wrapped_dek: bytes = blob()
    state: str = words()
    created_at: datetime = instant()
    expires_at: datetime = instant()
    kept_for: str = words()
    dsr_id: str = words()
    sha256: str = words()
    sealed_prompt: bytes = blob()
