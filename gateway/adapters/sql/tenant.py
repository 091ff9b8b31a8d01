"""The facts of the controllers, version after version."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.adapters.sql.table import Table, flag, instant, json_list, json_mapping, whole, words


class TenantVersionRow(Table, table=True):
    """Table of `TenantVersion`."""

    __tablename__ = "tenant_version"

    tenant: str = words(key=True)
    version: int = whole(key=True)
    name: str = words()
    contact: str = words()
    establishments: tuple[str, ...] | None = json_list()
    targets: tuple[str, ...] | None = json_list()
    time_zone: str = words()
    calendar: str | None = words()
    thresholds: Mapping[str, Any] = json_mapping()
    is_training_on: bool = flag()
    changed_at: datetime = instant()
    recipients: Mapping[str, Any] = json_mapping()
