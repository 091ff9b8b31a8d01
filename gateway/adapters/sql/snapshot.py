"""The tables of one moment, read row by row beside a gateway that runs; and read back into an empty database.

SQLite reads from a connection of its own within one read transaction (the
write-ahead log keeps the moment), PostgreSQL within one that is REPEATABLE READ
and READ ONLY.  Values are text, integers, flags and bytes in both, so what was
read from one may be loaded into the other.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import asyncpg
import sqlalchemy as sa
from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from gateway.adapters.sql.faults import RAISED, translate
from gateway.adapters.sql.postgres import PostgresLimits
from gateway.adapters.sql.records import is_sqlite, open_database, sqlite_path
from gateway.adapters.sql.registry import MAPPED, Mapped
from gateway.adapters.sql.schema import LOCK, SchemaMismatch, configuration
from gateway.adapters.sql.sqlite import create_file
from gateway.errors import StateConflict, StoreUnavailable
from gateway.ports.backup import Columns
from gateway.ports.records import Record

BATCH = 100
LOAD_S = 3600.0

_TYPES: Mapping[str, Any] = {
    "bytes": sa.LargeBinary,
    "flag": sa.Boolean,
    "int": sa.BigInteger,
    "text": sa.Text,
}

Batch = tuple[str, Columns, Sequence[Sequence[Any]]]
"""A table, its columns, and some of its rows."""


def _columns(mapped: Mapped) -> Columns:
    return tuple((name, _kind(column.type)) for name, column in mapped.columns.items())


def _kind(own: Any) -> str:
    plain = getattr(own, "impl_instance", own)
    for name, kind in (("bytes", sa.LargeBinary), ("flag", sa.Boolean), ("int", sa.Integer)):
        if isinstance(plain, kind):
            return name
    return "text"


TABLES: Mapping[str, Columns] = {mapped.table.name: _columns(mapped) for mapped in MAPPED.values()}


@dataclass(frozen=True, slots=True)
class SqliteSnapshot:
    """The `Snapshot` of a SQLite file; for a process of its own: reading blocks."""

    connection: sqlite3.Connection
    revision: str
    tables: Mapping[str, Columns] = field(default_factory=lambda: TABLES)

    async def rows(self, table: str) -> AsyncIterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a table in batches; see the port."""
        flags = [place for place, (_, kind) in enumerate(self.tables[table]) if kind == "flag"]
        try:
            found = self.connection.execute(_select(table, self.tables[table]))
            while batch := found.fetchmany(BATCH):
                yield [_with_flags(row, flags) for row in batch] if flags else batch
        except sqlite3.Error as error:
            raise translate(error)  # noqa: B904  # `translate` decides what is chained


@dataclass(frozen=True, slots=True)
class PostgresSnapshot:
    """The `Snapshot` of a PostgreSQL database."""

    connection: Any
    revision: str
    tables: Mapping[str, Columns] = field(default_factory=lambda: TABLES)

    async def rows(self, table: str) -> AsyncIterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a table in batches; see the port."""
        try:
            found = await self.connection.cursor(_select(table, self.tables[table]))
            while batch := await found.fetch(BATCH):
                yield [tuple(row) for row in batch]
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreUnavailable("the database does not answer", detail="lost") from error


@contextlib.asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[SqliteSnapshot | PostgresSnapshot]:
    """Open the tables as they stand at the moment of the first read.

    Raises:
        SchemaMismatch: The schema is not the one of this code.
        StoreUnavailable: The database does not answer.
    """
    if is_sqlite(url):
        connection = _sqlite(url)
        try:
            yield SqliteSnapshot(connection, _revision(connection))
        finally:
            connection.close()
        return
    async with _postgres(url) as plain:
        rows = await plain.fetch("SELECT version_num FROM alembic_version")
        yield PostgresSnapshot(plain, _current([row[0] for row in rows]))


def _sqlite(url: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(sqlite_path(url)))}?mode=rw", uri=True, isolation_level=None
        )
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise translate(error)  # noqa: B904  # `translate` decides what is chained
    return connection


@contextlib.asynccontextmanager
async def _postgres(url: str) -> AsyncIterator[Any]:
    limits = PostgresLimits()
    try:
        connection = await asyncpg.connect(
            url, timeout=limits.connect_s, server_settings={"application_name": "lethe-backup"}
        )
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection
        finally:
            await connection.close(timeout=limits.connect_s)
    except asyncpg.UndefinedTableError as error:
        raise SchemaMismatch("missing") from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StoreUnavailable("the database does not answer", detail="lost") from error


def _revision(connection: sqlite3.Connection) -> str:
    try:
        rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as error:
        raise SchemaMismatch("missing") from error
    return _current([row[0] for row in rows])


def _current(found: Sequence[str]) -> str:
    heads = ScriptDirectory.from_config(configuration()).get_heads()
    if list(found) != heads:
        raise SchemaMismatch("behind")
    return heads[0]


def _select(table: str, columns: Columns) -> str:
    names = ", ".join(f'"{name}"' for name, _ in columns)
    return f'SELECT {names} FROM "{table}"'  # noqa: S608 - our own names


def _with_flags(row: Sequence[Any], flags: Sequence[int]) -> tuple[Any, ...]:
    values = list(row)
    for place in flags:
        values[place] = bool(values[place])
    return tuple(values)


async def load(url: str, revision: str, batches: Iterable[Batch], mark: Record) -> None:
    """Fill an empty database, bring it to the schema of this code and add `mark`, all in one transaction.

    What `batches` raises takes everything back.  A SQLite file is created.

    Raises:
        StateConflict: The database holds something (detail `records_not_empty`).
        SchemaMismatch: The rows are of a newer schema than this code knows.
        StoreUnavailable: The database does not answer.
    """
    if is_sqlite(url):
        try:
            create_file(sqlite_path(url))
        except OSError as error:
            raise StoreUnavailable("the database file cannot be created", detail="file_missing") from error
    limits = replace(PostgresLimits(), connections=1, statement_s=LOAD_S)
    database = open_database(url, postgres=limits)
    try:
        await database.run(lambda connection: _fill(connection, revision, batches, mark))
    finally:
        await database.close()


async def is_empty(url: str) -> bool:
    """Return whether the database holds no row of ours; one that is not there does not.

    Raises:
        StoreUnavailable: The database does not answer.
    """
    if is_sqlite(url) and not sqlite_path(url).exists():
        return True
    database = open_database(url)
    try:
        return await database.run(lambda connection: _in_order(connection, _holds_nothing))
    finally:
        await database.close()


def _in_order(connection: sa.Connection, work: Any) -> Any:
    try:
        with connection.begin():
            return work(connection)
    except RAISED as error:
        raise translate(error)  # noqa: B904  # `translate` decides what is chained


def _holds_nothing(connection: sa.Connection) -> bool:
    ours = set(sa.inspect(connection).get_table_names()) - {"alembic_version"}
    return not any(
        connection.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).first()
        for name in sorted(ours)
    )


def _fill(connection: sa.Connection, revision: str, batches: Iterable[Batch], mark: Record) -> None:
    is_postgres = connection.dialect.name == "postgresql"
    if is_postgres:
        connection.execution_options(isolation_level="READ COMMITTED")

    def fill(connection: sa.Connection) -> None:
        if is_postgres:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        if not _holds_nothing(connection):
            raise StateConflict("the database is not empty", detail="records_not_empty")
        _prepare(connection, revision)
        for table, columns, rows in batches:
            if rows:
                connection.execute(_insert(table, columns), [_named(columns, row) for row in rows])
        command.upgrade(configuration(connection), "head")
        mapped = MAPPED[type(mark)]
        connection.execute(mapped.insert, [mapped.row(mark)])

    _in_order(connection, fill)


def _prepare(connection: sa.Connection, revision: str) -> None:
    """Bring an empty database to the schema that the rows are of."""
    try:
        ScriptDirectory.from_config(configuration()).get_revisions(revision)
    except CommandError:
        raise SchemaMismatch("newer") from None
    found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        command.upgrade(configuration(connection), revision)
    elif found != (revision,):
        raise StateConflict("the empty database has another schema: make a new one", detail="schema_differs")


def _insert(table: str, columns: Columns) -> sa.Insert:
    return sa.insert(sa.table(table, *(sa.column(name, _TYPES[kind]()) for name, kind in columns)))


def _named(columns: Columns, row: Sequence[Any]) -> dict[str, Any]:
    return {name: value for (name, _), value in zip(columns, row, strict=True)}
