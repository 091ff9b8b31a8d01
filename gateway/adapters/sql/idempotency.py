"""The answered request ids."""

from datetime import datetime

from sqlalchemy import Index

from gateway.adapters.sql.table import Table, instant, words


class RememberedRow(Table, table=True):
    """Table of `Remembered`."""

    __tablename__ = "remembered"
    __table_args__ = (Index(None, "expires_at"),)

    tenant: str = words(key=True)
    method: str = words(key=True)
    request_id: str = words(key=True)
    digest: str = words()
    resource: str = words()
    expires_at: datetime = instant()
