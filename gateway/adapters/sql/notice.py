"""The published privacy notices."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from gateway.adapters.sql.table import Table, flag, instant, json_list, json_mapping, whole, words


class NoticeRow(Table, table=True):
    """Table of `Notice`."""

    __tablename__ = "notice"

    tenant: str = words(key=True)
    notice_id: str = words(key=True)
    version: int = whole(key=True)
    language: str = words(key=True)
    thing_id: str = words()
    title: str = words()
    body: str = words()
    sha256: str = words()
    purposes: tuple[str, ...] = json_list()
    shown: Mapping[str, Any] = json_mapping()
    published_at: datetime = instant()
    is_spread: bool = flag()
