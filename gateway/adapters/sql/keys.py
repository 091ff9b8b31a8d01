"""Wrapped subject keys, and the epochs that are being rolled."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, instant, words


class SubjectKeyRow(Table, table=True):
    """Table of `SubjectKey`."""

    __tablename__ = "subject_key"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "epoch"),
    )

    key_id: str = words(key=True)
    tenant: str = words()
    handle: str | None = words()
    cls: str = words()
    month: str = words()
    epoch: str = words()
    wrapped: bytes = blob()
    created_at: datetime = instant()


class ClosedEpochRow(Table, table=True):
    """Table of `ClosedEpoch`."""

    __tablename__ = "closed_epoch"

    epoch: str = words(key=True)
    closed_at: datetime = instant()
