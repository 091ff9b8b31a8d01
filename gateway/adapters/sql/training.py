"""The training sets and what is in them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, instant, json_mapping, whole, words


class DatasetRow(Table, table=True):
    """Table of `Dataset`."""

    __tablename__ = "dataset"
    __table_args__ = (
        Index(None, "tenant", "label", "version"),
        Index(None, "state", "created_at"),
        Index(None, "expires_at"),
    )

    dataset_id: str = words(key=True)
    tenant: str = words()
    label: str = words()
    version: int = whole()
    state: str = words()
    max_size: int = whole()
    size: int = whole()
    skipped: Mapping[str, Any] = json_mapping()
    key_id: str = words()
    cursor: str = words()
    lease_owner: str = words()
    lease_until: datetime | None = instant()
    created_at: datetime = instant()
    expires_at: datetime = instant()
    profile: str = words()
    refused: Mapping[str, Any] = json_mapping()


class DatasetItemRow(Table, table=True):
    """Table of `DatasetItem`."""

    __tablename__ = "dataset_item"
    __table_args__ = (
        Index(None, "tenant", "handle"),
        Index(None, "dataset_id", "state", "item_id"),
        Index(None, "object_id"),
    )

    item_id: str = words(key=True)
    dataset_id: str = words()
    tenant: str = words()
    handle: str | None = words()
    state: str = words()
    job_id: str = words()
    source_object: str = words()
    object_id: str = words()
    consent_id: str = words()
    image_type: str = words()
    sha256: str = words()
    added_at: datetime = instant()
    removed_at: datetime | None = instant()
    similarity: int | None = whole()
