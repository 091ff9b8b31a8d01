"""What a request of a data subject pins, shows, waits for and was answered with; its place on the due list.

Revision ID: 0009
Revises: 0008
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NEW: dict[str, tuple[sa.types.TypeEngine[Any], Any]] = {
    "policy": (TEXT, "{}"),
    "ack_on": (TEXT, ""),
    "extension_reason": (TEXT, ""),
    "verified_by": (TEXT, ""),
    "failures": (sa.BigInteger(), 0),
    "mandate": (TEXT, ""),
    "duplicate_of": (TEXT, ""),
    "about": (TEXT, ""),
    "purposes": (TEXT, "[]"),
    "preview": (TEXT, "{}"),
    "wish_key": (TEXT, ""),
    "sealed_wish": (sa.LargeBinary(), b""),
    "wish_age": (TEXT, ""),
    "package_id": (TEXT, ""),
    "outcome": (TEXT, ""),
}
OVER = ("fulfilled", "refused", "cancelled")


def upgrade() -> None:
    """Add the columns, fill them for the requests that are there, and index the lists."""
    for name, (kind, _) in NEW.items():
        op.add_column("dsr", sa.Column(name, kind, nullable=True))
    for name in ("extended_at", "answered_at"):
        op.add_column("dsr", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("dsr", sa.Column("due_key", TEXT, nullable=True))
    _fill()
    with op.batch_alter_table("dsr") as dsr:
        for name, (kind, _) in NEW.items():
            dsr.alter_column(name, existing_type=kind, nullable=False)
    for columns in (["tenant", "due_key"], ["tenant", "received_at"], ["tenant", "state", "received_at"]):
        op.create_index(f"ix_dsr_{'_'.join(columns)}", "dsr", columns)


def _fill() -> None:
    """Give open requests their place on the due list, and those that are over the time of their answer."""
    columns: list[Any] = [sa.column(name, kind) for name, (kind, _) in NEW.items()]
    text = [sa.column(name, TEXT) for name in ("dsr_id", "state", "due_on", "due_key")]
    times = [sa.column(name, sa.BigInteger()) for name in ("updated_at", "answered_at")]
    dsr = sa.table("dsr", *columns, *text, *times)
    op.execute(sa.update(dsr).values({name: value for name, (_, value) in NEW.items()}))
    is_over = dsr.c.state.in_(OVER)
    op.execute(sa.update(dsr).where(~is_over).values(due_key=dsr.c.due_on + " " + dsr.c.dsr_id))
    op.execute(sa.update(dsr).where(is_over).values(answered_at=dsr.c.updated_at))
