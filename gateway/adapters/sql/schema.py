"""The schema of the database and its migrations (Alembic)."""

from __future__ import annotations

from dataclasses import replace

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from gateway.adapters.sql.database import Database
from gateway.adapters.sql.faults import RAISED, translate
from gateway.adapters.sql.postgres import PostgresLimits
from gateway.adapters.sql.records import is_sqlite, open_database, sqlite_path
from gateway.adapters.sql.sqlite import create_file
from gateway.errors import StoreUnavailable

LOCK = 0x6C65746865  # "lethe": so that two migrations of one PostgreSQL database wait for each other
MIGRATION_S = 3600.0


class SchemaMismatch(Exception):
    """The database's schema is not the one this code was written for.

    `state` is `missing`, `behind` or `newer`.
    """

    def __init__(self, state: str) -> None:
        remedy = {
            "missing": "run `lethe migrate`",
            "behind": "run `lethe migrate`",
            "newer": "run the version of Lethe that made it, or a later one",
        }[state]
        super().__init__(f"the database schema is {state}: {remedy}")
        self.state = state


async def migrate(url: str) -> None:
    """Bring the database at `url` to the schema of this code, as one transaction.

    A SQLite file is created, readable by its owner only; a PostgreSQL database
    must exist.  Nothing happens where the schema is right already.

    Raises:
        SchemaMismatch: The schema is newer than this code.
        StoreUnavailable: The database does not answer.
        ValueError: The URL is no database of ours.
    """
    if is_sqlite(url):
        try:
            create_file(sqlite_path(url))
        except OSError as error:
            raise StoreUnavailable("the database file cannot be created", detail="file_missing") from error
    database = open_database(url, postgres=replace(PostgresLimits(), connections=1, statement_s=MIGRATION_S))
    try:
        await database.run(_upgrade)
    finally:
        await database.close()


async def check(database: Database) -> None:
    """Raise `SchemaMismatch` unless the database has exactly the schema of this code."""
    try:
        state = await database.run(_state)
    except StoreUnavailable as error:
        if error.detail == "file_missing":
            raise SchemaMismatch("missing") from error
        raise
    if state:
        raise SchemaMismatch(state)


def configuration(connection: Connection | None = None) -> Config:
    """Return the configuration of Alembic for our migrations."""
    config = Config()
    config.set_main_option("script_location", "gateway.adapters.sql:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    is_postgres = connection.dialect.name == "postgresql"
    try:
        if is_postgres:
            # A serialisable snapshot, taken before the lock, would not see what the last holder made.
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            if is_postgres:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
            if _compare(connection) == "newer":
                raise SchemaMismatch("newer")
            command.upgrade(configuration(connection), "head")
    except RAISED as error:
        raise translate(error)  # noqa: B904  # `translate` decides what is chained


def _state(connection: Connection) -> str:
    try:
        with connection.begin():
            return _compare(connection)
    except RAISED as error:
        raise translate(error)  # noqa: B904  # `translate` decides what is chained


def _compare(connection: Connection) -> str:
    """Return `missing`, `behind` or `newer`, or nothing where the schema is right."""
    script = ScriptDirectory.from_config(configuration())
    found = MigrationContext.configure(connection).get_current_heads()
    if not found:
        return "missing"
    if set(found) == set(script.get_heads()):
        return ""
    try:
        script.get_revisions(found)
    except CommandError:
        return "newer"
    return "behind"
