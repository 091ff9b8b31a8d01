"""The records port on a SQL database."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from gateway.adapters.sql.database import Database
from gateway.adapters.sql.postgres import PostgresDatabase, PostgresLimits
from gateway.adapters.sql.registry import MAPPED
from gateway.adapters.sql.search import Quest
from gateway.adapters.sql.sqlite import SqliteDatabase
from gateway.ports.records import Record, Searched, Transaction

T = TypeVar("T")


class SqlRecords:
    """The records of all tenants, in SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` as one serialisable transaction and return its result once it is durable.

        A caller that is cancelled stops waiting, but a transaction that has
        begun is carried to its end: it may be kept, as after a lost answer.

        Raises:
            StoreUnavailable: The database is lost, full or broken.
        """
        return await self._database.transact(work)

    async def check_schema(self) -> None:
        """Refuse a database whose schema is not the one this code was written for.

        Raises:
            SchemaMismatch: It is missing, behind, or newer.
            StoreUnavailable: The database does not answer.
        """
        from gateway.adapters.sql import schema

        await schema.check(self._database)

    async def scour(self) -> None:
        """Remove traces of deleted rows, as far as the database can; see each database for how far."""
        await self._database.scour()

    async def search(
        self, needles: Collection[bytes], *, skip: Collection[tuple[type[Record], str]] = ()
    ) -> Searched:
        """Look for the needles in every column of every table of the database; see the port.

        Raises:
            StoreUnavailable: The database is lost, or a table that it shows cannot be searched.
        """
        columns = {(MAPPED[kind].table.name, name) for kind, name in skip}
        return await self._database.search(Quest(needles, columns))

    async def close(self) -> None:
        """Let the database go; what has begun is finished first."""
        await self._database.close()


def open_records(
    url: str, *, postgres: PostgresLimits | None = None, busy_timeout_s: float = 5.0
) -> SqlRecords:
    """Return the records at `url`; nothing is connected, created or changed yet.

    Args:
        url: `sqlite:///ABSOLUTE/PATH` or `postgresql://...`.
        postgres: Limits that a PostgreSQL database is used within.
        busy_timeout_s: How long SQLite waits for another process, in seconds.

    Raises:
        ValueError: The URL is neither.
    """
    return SqlRecords(open_database(url, postgres=postgres, busy_timeout_s=busy_timeout_s))


def open_database(
    url: str, *, postgres: PostgresLimits | None = None, busy_timeout_s: float = 5.0
) -> Database:
    """Return the database at `url`, as `open_records` does."""
    if is_sqlite(url):
        return SqliteDatabase(sqlite_path(url), busy_timeout_s=busy_timeout_s)
    if urlsplit(url).scheme in {"postgresql", "postgres"}:
        return PostgresDatabase(url, postgres)
    raise ValueError("a records URL begins with sqlite:/// or postgresql://")


def is_sqlite(url: str) -> bool:
    """Return whether the URL names a SQLite file."""
    return url.startswith("sqlite:")


def sqlite_path(url: str) -> Path:
    """Return the absolute path in a SQLite URL; three slashes and four mean the same.

    Raises:
        ValueError: There is a host, an option, or no path.
    """
    parts = urlsplit(url)
    path = "/" + unquote(parts.path).lstrip("/")
    if parts.netloc or parts.query or parts.fragment or path == "/" or "\0" in path:
        raise ValueError("a SQLite URL is sqlite:///ABSOLUTE/PATH")
    return Path(path)
