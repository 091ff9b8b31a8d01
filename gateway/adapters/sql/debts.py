"""What is owed and could not be done yet."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, instant, whole, words


class DebtRow(Table, table=True):
    """Table of `Debt`."""

    __tablename__ = "debt"
    __table_args__ = (Index(None, "kind", "retry_at"), Index(None, "tenant", "kind", "item"))

    kind: str = words(key=True)
    item: str = words(key=True)
    tenant: str = words()
    about: str = words()
    tries: int = whole()
    code: str = words()
    since: datetime = instant()
    retry_at: datetime | None = instant()
