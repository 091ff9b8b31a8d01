"""Databases that have the schema already."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gateway.adapters.sql.records import is_sqlite, sqlite_path
from gateway.adapters.sql.schema import migrate
from gateway.adapters.sql.sqlite import create_file

_made: list[bytes] = []


async def migrated(url: str) -> None:
    """Bring the database at `url` to the schema of this code; a new SQLite file is a copy of one that was."""
    if not is_sqlite(url) or sqlite_path(url).exists():
        await migrate(url)
        return
    if not _made:
        with tempfile.TemporaryDirectory(prefix="lethe-schema-") as folder:
            first = Path(folder) / "lethe.db"
            await migrate(f"sqlite://{first}")
            _made.append(first.read_bytes())
    create_file(sqlite_path(url))
    sqlite_path(url).write_bytes(_made[0])
