"""The audit leaves, what their seals fix, the tiles of the tree, its checkpoints and the log's keys."""

from datetime import datetime

from sqlalchemy import Index, UniqueConstraint, text

from gateway.adapters.sql.table import Table, blob, flag, instant, whole, words


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


class SealedPayloadRow(Table, table=True):
    """Table of `SealedPayload`."""

    __tablename__ = "sealed_payload"
    __table_args__ = (
        Index(
            "ix_sealed_payload_handle",
            "handle",
            sqlite_where=text("handle IS NOT NULL"),
            postgresql_where=text("handle IS NOT NULL"),
        ),
        Index("ix_sealed_payload_month", "log", "month"),
    )

    event_id: str = words(key=True)
    slot: int = whole(key=True)
    log: str = words()
    handle: str | None = words()
    key_id: str = words()
    month: str = words()
    blob: bytes = blob()
    erased_by: str = words()


class TileRow(Table, table=True):
    """Table of `Tile`."""

    __tablename__ = "tile"

    log: str = words(key=True)
    level: int = whole(key=True)
    index: int = whole(key=True)
    hashes: bytes = blob()


class LogHeadRow(Table, table=True):
    """Table of `LogHead`."""

    __tablename__ = "log_head"

    log: str = words(key=True)
    size: int = whole()
    root: bytes = blob()
    note: str = words()
    min_index: int = whole()


class LogKeysRow(Table, table=True):
    """Table of `LogKeys`."""

    __tablename__ = "log_keys"

    log: str = words(key=True)
    text: str = words()
    handover: str = words()


class CheckpointRow(Table, table=True):
    """Table of `Checkpoint`."""

    __tablename__ = "checkpoint"

    log: str = words(key=True)
    size: int = whole(key=True)
    root: bytes = blob()
    note: str = words()
    signed_at: datetime = instant()
    is_kept: bool = flag()
    timestamp: bytes | None = blob()


class WitnessedSizeRow(Table, table=True):
    """Table of `WitnessedSize`."""

    __tablename__ = "witnessed_size"

    log: str = words(key=True)
    witness: str = words(key=True)
    size: int = whole()
