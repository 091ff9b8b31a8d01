"""Data-subject requests and the certificates of erasures."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, instant, json_mapping, whole, words


class DsrRow(Table, table=True):
    """Table of `Dsr`."""

    __tablename__ = "dsr"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "state", "lease_until"),
        Index(None, "keep_until"),
    )

    dsr_id: str = words(key=True)
    tenant: str = words()
    handle: str | None = words()
    kind: str = words()
    regime: str = words()
    state: str = words()
    step: int = whole()
    opened_by: str = words()
    approved_by: str = words()
    reason_code: str = words()
    received_at: datetime = instant()
    due_on: str = words()
    extended_due_on: str = words()
    internal_target_on: str = words()
    counts: Mapping[str, Any] = json_mapping()
    certificate_id: str = words()
    lease_owner: str = words()
    lease_until: datetime | None = instant()
    created_at: datetime = instant()
    updated_at: datetime = instant()
    keep_until: datetime | None = instant()


class CertificateRow(Table, table=True):
    """Table of `Certificate`."""

    __tablename__ = "certificate"
    __table_args__ = (Index(None, "tenant", "dsr_id"), Index(None, "keep_until"))

    certificate_id: str = words(key=True)
    tenant: str = words()
    dsr_id: str = words()
    event_id: str = words()
    opening: bytes = blob()
    issued_at: datetime = instant()
    keep_until: datetime | None = instant()
