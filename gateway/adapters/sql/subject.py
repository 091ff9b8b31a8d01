"""The people whose data is processed."""

from datetime import datetime

from gateway.adapters.sql.table import Table, blob, instant, words


class SubjectRow(Table, table=True):
    """Table of `Subject`."""

    __tablename__ = "subject"

    tenant: str = words(key=True)
    handle: str = words(key=True)
    state: str = words()
    key_id: str = words()
    sealed_profile: bytes = blob()
    created_at: datetime = instant()
    updated_at: datetime = instant()
