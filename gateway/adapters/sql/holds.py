"""Legal holds."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, instant, json_list, words


class HoldRow(Table, table=True):
    """Table of `Hold`."""

    __tablename__ = "hold"
    __table_args__ = (Index(None, "tenant", "handle"), Index(None, "until"))

    hold_id: str = words(key=True)
    tenant: str = words()
    handle: str = words()
    rule: str = words()
    classes: tuple[str, ...] = json_list()
    until: datetime | None = instant()
    placed_at: datetime = instant()
    dsr_id: str = words()
