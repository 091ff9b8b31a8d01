"""The audit leaves, the hashes of the tree and its checkpoint."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text

from gateway.adapters.sql.table import Table, blob, instant, json_list, whole, words


class LeafRow(Table, table=True):
    """Table of `Leaf`."""

    __tablename__ = "leaf"
    __table_args__ = (
        UniqueConstraint("log", "seq"),
        Index(
            "ix_leaf_waiting",
            "log",
            "queued_at",
            "event_id",
            sqlite_where=text("seq IS NULL"),
            postgresql_where=text("seq IS NULL"),
        ),
    )

    event_id: str = words(key=True)
    log: str = words()
    ty: str = words()
    line: bytes = blob()
    leaf_hash: bytes = blob()
    queued_at: datetime = instant()
    seq: int | None = whole()


class NodeRow(Table, table=True):
    """Table of `Node`."""

    __tablename__ = "node"

    log: str = words(key=True)
    level: int = whole(key=True)
    index: int = whole(key=True)
    hash: bytes = blob()


class CheckpointRow(Table, table=True):
    """Table of `Checkpoint`."""

    __tablename__ = "checkpoint"

    log: str = words(key=True)
    size: int = whole()
    root: bytes = blob()
    note: str = words()
    signed_at: datetime = instant()
    peaks: tuple[str, ...] = json_list()
