"""The register of incidents."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, blob, instant, json_list, json_mapping, whole, words


class IncidentRow(Table, table=True):
    """Table of `Incident`."""

    __tablename__ = "incident"
    __table_args__ = (
        Index(None, "tenant", "aware_at", "incident_id"),
        Index(None, "due_at"),
        Index(None, "keep_until"),
    )

    incident_id: str = words(key=True)
    tenant: str = words()
    version: int = whole()
    kind: str = words()
    data_categories: tuple[str, ...] = json_list()
    residences: tuple[str, ...] = json_list()
    about_subjects: int = whole()
    about_records: int = whole()
    aware_at: datetime = instant()
    authority: Mapping[str, Any] = json_mapping()
    subjects: Mapping[str, Any] = json_mapping()
    regimes: tuple[str, ...] = json_list()
    due_at: datetime | None = instant()
    key_id: str = words()
    sealed_text: bytes = blob()
    recorded_at: datetime = instant()
    updated_at: datetime = instant()
    keep_until: datetime = instant()
