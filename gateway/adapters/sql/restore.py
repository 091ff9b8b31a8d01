"""The restored backup that is not settled yet."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.adapters.sql.table import Table, instant, json_mapping, words


class RestoreRow(Table, table=True):
    """Table of `Restore`."""

    __tablename__ = "restore"

    backup_id: str = words(key=True)
    digest: str = words()
    made_at: datetime = instant()
    logs: Mapping[str, Any] = json_mapping()
    settled: Mapping[str, Any] = json_mapping()
    counts: Mapping[str, Any] = json_mapping()
