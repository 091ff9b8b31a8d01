"""Tiles in place of nodes, sealed payloads, published checkpoints beside the head.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WIDTH = 256
LEVELS = 8


def upgrade() -> None:
    """Make the new tables, and move what the old ones say."""
    op.create_table(
        "sealed_payload",
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("log", TEXT, nullable=False),
        sa.Column("handle", TEXT, nullable=True),
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("month", TEXT, nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("erased_by", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "slot", name="pk_sealed_payload"),
    )
    op.create_index(
        "ix_sealed_payload_handle",
        "sealed_payload",
        ["handle"],
        sqlite_where=sa.text("handle IS NOT NULL"),
        postgresql_where=sa.text("handle IS NOT NULL"),
    )
    op.create_index("ix_sealed_payload_month", "sealed_payload", ["log", "month"])
    tile = op.create_table(
        "tile",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("level", sa.BigInteger(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "index", name="pk_tile"),
    )
    head = op.create_table(
        "log_head",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("min_index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_log_head"),
    )
    old = sa.table("checkpoint", *map(sa.column, ("log", "size", "root", "note", "signed_at")))
    signed = op.get_bind().execute(sa.select(old)).all()
    op.drop_table("checkpoint")
    published = op.create_table(
        "checkpoint",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("signed_at", sa.BigInteger(), nullable=False),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("log", "size", name="pk_checkpoint"),
    )
    op.create_table(
        "witnessed_size",
        sa.Column("log", TEXT, nullable=False),
        sa.Column("witness", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("log", "witness", name="pk_witnessed_size"),
    )
    for log, size, root, note, signed_at in signed:
        standing = {"log": log, "size": size, "root": root, "note": note}
        op.get_bind().execute(head.insert().values(**standing, min_index=0))
        op.get_bind().execute(published.insert().values(**standing, signed_at=signed_at, is_kept=False))
    _gather(op.get_bind(), tile)
    op.drop_table("node")


def _gather(connection: sa.Connection, tile: sa.Table) -> None:
    """Gather the nodes of every eighth level into tiles."""
    node = sa.table("node", *map(sa.column, ("log", "level", "index", "hash")))
    chosen = (
        sa.select(node.c.log, node.c.level, node.c.index, node.c.hash)
        .where(node.c.level % LEVELS == 0)
        .order_by(node.c.log, node.c.level, node.c.index)
    )
    gathered: tuple[str, int, int] | None = None
    hashes: list[bytes] = []
    for log, level, index, hashed in connection.execute(chosen):
        place = (log, level // LEVELS, index // WIDTH)
        if gathered is not None and place != gathered:
            _write(connection, tile, gathered, hashes)
            hashes = []
        gathered = place
        hashes.append(bytes(hashed))
    if gathered is not None:
        _write(connection, tile, gathered, hashes)


def _write(
    connection: sa.Connection, tile: sa.Table, place: tuple[str, int, int], hashes: list[bytes]
) -> None:
    log, level, index = place
    connection.execute(tile.insert().values(log=log, level=level, index=index, hashes=b"".join(hashes)))
