"""Consents and opt-out signals."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, flag, instant, json_list, whole, words


class ConsentRow(Table, table=True):
    """Table of `Consent`."""

    __tablename__ = "consent"
    __table_args__ = (
        Index(None, "tenant", "handle", "purpose"),
        Index(None, "key_id"),
        Index(None, "keep_until"),
        Index(None, "tenant", "receipt_id"),
        Index(None, "tenant", "renew_at"),
        Index(None, "tenant", "notice_id", "notice_language", "consent_id"),
    )

    consent_id: str = words(key=True)
    tenant: str = words()
    handle: str | None = words()
    key_id: str = words()
    purpose: str = words()
    form: str = words()
    flags: tuple[str, ...] = json_list()
    given_by: str = words()
    via: str = words()
    term_shown: str = words()
    notice_id: str = words()
    notice_version: int = whole()
    notice_language: str = words()
    notice_sha256: str = words()
    given_at: datetime = instant()
    expires_at: datetime | None = instant()
    withdrawn_at: datetime | None = instant()
    withdrawn_via: str = words()
    superseded_by: str = words()
    regimes: tuple[str, ...] = json_list()
    sealed_evidence: bytes = blob()
    keep_until: datetime | None = instant()
    state: str = words()
    event_id: str = words()
    receipt_id: str = words()
    renew_at: datetime | None = instant()


class SignalRow(Table, table=True):
    """Table of `Signal`."""

    __tablename__ = "signal"

    tenant: str = words(key=True)
    handle: str = words(key=True)
    gpc: bool = flag()
    limit_spi: bool = flag()
    recorded_at: datetime = instant()
