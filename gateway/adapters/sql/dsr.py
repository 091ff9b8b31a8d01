"""Data-subject requests and the certificates of erasures."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, instant, json_list, json_mapping, whole, words


class DsrRow(Table, table=True):
    """Table of `Dsr`."""

    __tablename__ = "dsr"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "state", "lease_until"),
        Index(None, "keep_until"),
        Index(None, "tenant", "due_key"),
        Index(None, "tenant", "owed_key"),
        Index(None, "tenant", "received_at"),
        Index(None, "tenant", "state", "received_at"),
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
    policy: Mapping[str, Any] = json_mapping()
    ack_on: str = words()
    due_key: str | None = words()
    extended_at: datetime | None = instant()
    extension_reason: str = words()
    verified_by: str = words()
    failures: int = whole()
    mandate: str = words()
    duplicate_of: str = words()
    about: str = words()
    purposes: tuple[str, ...] = json_list()
    preview: Mapping[str, Any] = json_mapping()
    wish_key: str = words()
    sealed_wish: bytes = blob()
    wish_age: str = words()
    package_id: str = words()
    outcome: str = words()
    answered_at: datetime | None = instant()
    recipients: Mapping[str, Any] = json_mapping()
    owed_key: str | None = words()
    clock: Mapping[str, Any] = json_mapping()
    refused_parts: Mapping[str, Any] = json_mapping()


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
