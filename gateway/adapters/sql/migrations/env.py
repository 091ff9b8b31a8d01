"""What Alembic runs: on the connection it is given, or on the database that `-x url=...` names."""

import asyncio
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection

from gateway.adapters.sql.records import open_database
from gateway.adapters.sql.registry import ROWS
from gateway.adapters.sql.table import Table
from gateway.adapters.sql.types import Instant, JsonList, JsonMapping, Whole, Words


def plain(kind: str, thing: Any, _context: Any) -> str | Literal[False]:
    """Draft our column types as what they are in the database: a step outlives today's classes."""
    if kind == "type" and isinstance(thing, (Words, JsonList, JsonMapping)):
        return "TEXT"
    if kind == "type" and isinstance(thing, (Whole, Instant)):
        return "sa.BigInteger()"
    return False


def run(connection: Connection) -> None:
    """Run what Alembic was asked for, as one transaction."""
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        compare_server_default=True,
        render_item=plain,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_at(url: str) -> None:
    """Run on the database at `url`."""
    database = open_database(url)
    try:
        await database.run(run)
    finally:
        await database.close()


def main() -> None:
    """Find the connection and run."""
    if not ROWS or context.is_offline_mode():
        raise RuntimeError("migrations run against a database, not into a script")
    connection = context.config.attributes.get("connection")
    if connection is not None:
        run(connection)
    else:
        asyncio.run(run_at(context.get_x_argument(as_dictionary=True)["url"]))


main()
